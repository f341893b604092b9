//! The contract of logs that are read while they are written, on both that keep them: a node's directory, and CloudWatch.

use std::sync::atomic::{AtomicU64, Ordering};

use aws::{Client, live::log::Reader};
use jiff::Timestamp;
use model::port::{LogRef, Logs as _};
use serde_json::json;

use super::moto::Moto;

trait Logs {
    type Place;
    /// Adds lines at the end of a log, which is made with the first.
    async fn write(&self, log: &str, lines: &[String]);
    /// Reading begins there.
    fn beginning(&self, log: &str) -> Self::Place;
    /// What is new since then.
    async fn read(&self, place: &mut Self::Place) -> Vec<String>;
}

async fn contract(logs: &impl Logs) {
    let mut place = logs.beginning("build/one");
    // Who reads a log before it is there waits for it.
    assert!(logs.read(&mut place).await.is_empty());
    let lines = |all: &[&str]| all.iter().map(|own| (*own).to_owned()).collect::<Vec<_>>();
    let first = lines(&["begins", "  \"it's\" ü <&> ${x}\tt", "ERROR 7"]);
    logs.write("build/one", &first).await;
    assert_eq!(logs.read(&mut place).await, first);
    assert!(logs.read(&mut place).await.is_empty(), "each line is told once");
    // The same words again are another line.
    let again = lines(&["ERROR 7", "ERROR 7"]);
    logs.write("build/one", &again).await;
    assert_eq!(logs.read(&mut place).await, again);
    // Another's lines are another's.
    let many: Vec<String> = (0..300).map(|n| format!("line {n}")).collect();
    logs.write("build/two", &many).await;
    assert!(logs.read(&mut place).await.is_empty());
    assert_eq!(logs.read(&mut logs.beginning("build/two")).await, many);
    assert_eq!(
        logs.read(&mut logs.beginning("build/one")).await,
        [first, again].concat()
    );
}

struct Own(host::logs::Directory);

impl Logs for Own {
    type Place = (LogRef, u64);

    async fn write(&self, log: &str, lines: &[String]) {
        let mask = host::logs::Mask::default();
        let mut writer = self.0.append(&log.parse().unwrap(), mask, 1 << 20).unwrap();
        lines.iter().for_each(|line| writer.line(line).unwrap());
        writer.release().unwrap();
    }

    fn beginning(&self, log: &str) -> Self::Place {
        (log.parse().unwrap(), 0)
    }

    async fn read(&self, (log, offset): &mut Self::Place) -> Vec<String> {
        let chunk = self.0.read(log, *offset).await.unwrap();
        *offset = chunk.next;
        chunk.text.lines().map(str::to_owned).collect()
    }
}

struct Amazon {
    moto: Moto,
    client: Client,
    begin: Timestamp,
    /// Milliseconds since then, at which the next line is written.
    at: AtomicU64,
}

impl Logs for Amazon {
    type Place = Reader;

    async fn write(&self, log: &str, lines: &[String]) {
        let begin = self.begin.as_millisecond();
        let event = |line: &String| {
            let after = self.at.fetch_add(7, Ordering::Relaxed);
            json!({ "timestamp": begin + i64::try_from(after).unwrap(), "message": line })
        };
        let events: Vec<_> = lines.iter().map(event).collect();
        let input = json!({ "group": format!("/{log}"), "events": events });
        let script = "l = client('logs')\nown = json.loads(sys.argv[2])\ng = own['group']\n\
            if not l.describe_log_groups(logGroupNamePrefix=g)['logGroups']:\n  \
              l.create_log_group(logGroupName=g)\n  \
              l.create_log_stream(logGroupName=g, logStreamName='i-1')\n\
            l.put_log_events(logGroupName=g, logStreamName='i-1', logEvents=own['events'])";
        self.moto.python(script, &input.to_string()).await;
    }

    fn beginning(&self, log: &str) -> Self::Place {
        Reader::new(format!("/{log}"), None, self.begin)
    }

    async fn read(&self, place: &mut Self::Place) -> Vec<String> {
        let mut all = Vec::new();
        place
            .read(&self.client, &mut |line| all.push(line.text))
            .await
            .unwrap();
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_in_a_directory() {
    let root = tempfile::tempdir().unwrap();
    let root = camino::Utf8Path::from_path(root.path()).unwrap();
    contract(&Own(host::logs::Directory::open(root).unwrap())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_in_cloudwatch() {
    let Some(moto) = Moto::start().await else { return };
    let logs = Amazon {
        client: moto.client(),
        moto,
        // CloudWatch takes no lines of the future.
        begin: crate::clock::now() - jiff::SignedDuration::from_mins(10),
        at: AtomicU64::default(),
    };
    contract(&logs).await;
}
