//! Room for images on the disk: who waits for it, and who is refused.

use std::time::Duration;

use model::port::{Fault, ImageUsage, Shelf};
use tokio::sync::Notify;

/// Who waits for room looks again soon, then more and more seldom up to this, and gives up after so many looks.
const LOOK: Duration = Duration::from_secs(15);
const LOOKS: u32 = 120;

/// How long one waits for room at most, in seconds.
pub fn longest_wait_s() -> i64 {
    i64::try_from(LOOK.as_secs() * u64::from(LOOKS)).unwrap_or(i64::MAX)
}

/// Waits until the images' part of the disk has room. `said`: the reason that is on record; `note` puts another one there,
/// for people.
pub async fn room<N>(
    shelf: &impl Shelf,
    sweep: &Notify,
    mut said: Option<String>,
    note: impl Fn(Option<String>) -> N,
) -> Result<(), Fault>
where
    N: Future<Output = Result<(), Fault>>,
{
    let mut looks = 0;
    loop {
        let full = full(shelf, sweep).await?;
        let waits = full.as_ref().map(|why| format!("room: {why} ({MORE_ROOM})"));
        if said != waits {
            note(waits.clone()).await?;
            said = waits;
        }
        match full {
            None => return Ok(()),
            Some(why) if looks == LOOKS => return Err(no_room(&why)),
            Some(_) => tokio::time::sleep(LOOK.min(Duration::from_secs(1 << looks.min(10)))).await,
        }
        looks += 1;
    }
}

/// Refuses an image that somebody brings while there is no room: who it is can bring it again.
pub async fn refuse_more(shelf: &impl Shelf, sweep: &Notify) -> Result<(), Fault> {
    match full(shelf, sweep).await? {
        None => Ok(()),
        Some(why) => Err(no_room(&why)),
    }
}

/// Near the end of the images' part of the disk, has what nothing needs removed, for who may need room.
pub async fn clear(shelf: &impl Shelf, sweep: &Notify) -> Result<(), Fault> {
    full(shelf, sweep).await.map(drop)
}

/// Why the images' part of the disk has no room for another, if it has none. Near the end of that part what nothing needs is
/// removed at once.
async fn full(shelf: &impl Shelf, sweep: &Notify) -> Result<Option<String>, Fault> {
    let usage = shelf.usage().await?;
    if usage.is_near() {
        sweep.notify_one();
    }
    Ok(usage.is_full().then(|| fullness(&usage)))
}

fn no_room(why: &str) -> Fault {
    Fault::platform(format!("there is no room for another image: {why}")).next(MORE_ROOM)
}

/// What makes room for images.
const MORE_ROOM: &str =
    "raise `images.budget_gib` in platform.toml, or destroy environments that are not used";

fn fullness(usage: &ImageUsage) -> String {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    format!(
        "images and caches take {:.1} of their {:.1} GiB of the disk, and what is left is needed by live hosts, by the last releases or \
         was used in the last hours",
        gib(usage.bytes),
        gib(usage.budget_bytes)
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    use model::{
        Digest,
        port::{BaseOrder, BasesSeen, ImageAbout, ImageDiff},
    };

    use super::*;

    /// A disk that is full for so many looks.
    struct Disk(AtomicUsize);

    impl Shelf for Disk {
        async fn describe(&self, _: &Digest) -> Result<ImageAbout, Fault> {
            unreachable!()
        }

        async fn compare(&self, _: &Digest, _: &Digest) -> Result<ImageDiff, Fault> {
            unreachable!()
        }

        async fn bases(&self) -> Result<BasesSeen, Fault> {
            unreachable!()
        }

        async fn refresh(&self, _: &BaseOrder) -> Result<bool, Fault> {
            unreachable!()
        }

        async fn usage(&self) -> Result<ImageUsage, Fault> {
            let more = self
                .0
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |looks| looks.checked_sub(1));
            Ok(ImageUsage {
                bytes: if more.is_ok() { 2 << 30 } else { 1 << 30 },
                budget_bytes: 2 << 30,
            })
        }
    }

    /// What is on record after each change while one waits, and how it ends.
    async fn waited(full: usize, said: Option<&str>) -> (Vec<Option<String>>, Result<(), Fault>, bool) {
        let (sweep, notes) = (Notify::new(), Mutex::new(Vec::new()));
        let note = |why| {
            notes.lock().unwrap().push(why);
            async { Ok(()) }
        };
        let disk = Disk(AtomicUsize::new(full));
        let ended = room(&disk, &sweep, said.map(str::to_owned), note).await;
        let poked = tokio::time::timeout(Duration::from_millis(1), sweep.notified()).await;
        (notes.into_inner().unwrap(), ended, poked.is_ok())
    }

    #[tokio::test]
    async fn who_waits_for_room_says_so_until_there_is_some() {
        let (notes, ended, swept) = waited(1, None).await;
        let [Some(why), None] = &notes[..] else {
            panic!("{notes:?}");
        };
        assert!(
            why.starts_with("room: images and caches take 2.0 of their 2.0 GiB"),
            "{why}"
        );
        assert!(why.contains("images.budget_gib") && ended.is_ok() && swept);
        let (notes, ended, swept) = waited(0, None).await;
        assert_eq!((notes, ended.is_ok(), swept), (vec![], true, false));
        let (notes, ended, _) = waited(0, Some(why)).await;
        assert_eq!(
            (notes, ended.is_ok()),
            (vec![None], true),
            "it waited before a restart"
        );
    }

    #[tokio::test]
    async fn what_somebody_brings_is_refused_while_there_is_no_room() {
        let sweep = Notify::new();
        let disk = Disk(AtomicUsize::new(1));
        let fault = refuse_more(&disk, &sweep).await.unwrap_err();
        assert!(fault.message.contains("no room for another image"), "{fault}");
        sweep.notified().await;
        assert!(refuse_more(&disk, &sweep).await.is_ok());
    }
}
