//! Measures bakes: `bakes NODE STEPS MODE`. `NODE` is a directory to work in, `STEPS` one with the scripts `1.sh`, `2.sh`
//! and `3.sh`. Prints one JSON object.
//!
//! `base`: makes the base. `cold`: bakes with nothing but the base there, then again with everything there, then with
//! another last script. `many COUNT`: so many images that differ in their last script.

use std::{collections::BTreeSet, fs, process::ExitCode, time::Instant};

use camino::{Utf8Path, Utf8PathBuf};
use host::{
    agent::systemctl,
    bake::{Kitchen, Oven},
    base::{Bases, Mirror, Wanted},
    container::{self, Containers},
    image::Images,
    layer::Layers,
    logs, objects,
    oci::Reach,
};
use jiff::{SignedDuration, Timestamp};
use model::{
    Digest,
    port::{BakeOrder, Bakery as _, Commit, Fault, Resources},
    spec::Base,
};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let own = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    if systemctl::is_name(&own) {
        return systemctl::main(&own, &arguments);
    }
    let ran = match arguments.as_slice() {
        [node, steps, mode, rest @ ..] => run(node, steps, mode, rest),
        _ => Err("bakes NODE STEPS base|cold|many [COUNT]".into()),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(node: &str, steps: &str, mode: &str, rest: &[String]) -> Result<(), Failure> {
    container::enter_private_mounts()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let world = World::open(Utf8Path::new(node), steps.into()).await?;
        match mode {
            "base" => world.base().await,
            "cold" => world.cold().await,
            "many" => {
                world
                    .many(rest.first().map_or(Ok(50), |count| count.parse())?)
                    .await
            }
            other => Err(format!("no mode `{other}`").into()),
        }
    })
}

struct World {
    node: Utf8PathBuf,
    steps: Utf8PathBuf,
    objects: objects::Directory,
    layers: Layers,
    oven: Oven,
}

impl World {
    async fn open(node: &Utf8Path, steps: Utf8PathBuf) -> Result<Self, Failure> {
        fs::create_dir_all(node)?;
        let node = node.canonicalize_utf8()?;
        let layers = Layers::open(&node)?;
        let objects = objects::Directory::open(&node, 1 << 30)?;
        let reach = Reach::Public { also: Vec::new() };
        let oven = Oven::open(Kitchen {
            containers: Containers::open(&node).await?,
            objects: objects.clone(),
            logs: logs::Directory::open(&node)?,
            images: Images::open(&node, layers.clone())?,
            bases: Bases::open(&node, layers.clone(), Mirror::of_this_machine(), reach)?,
            layers: layers.clone(),
            program: std::env::current_exe()?.try_into()?,
            limits: Resources {
                cpu: 2.0,
                memory_mib: 2048,
                disk_mib: 8192,
                pids: 1000,
            },
            at_once: 2,
            node: node.clone(),
        })?;
        Ok(Self {
            node,
            steps,
            objects,
            layers,
            oven,
        })
    }

    async fn base(&self) -> Result<(), Failure> {
        let started = Instant::now();
        let debian = Base::Named(host::base::DEBIAN);
        let made = self.oven.bases().ensure(Wanted::of(&debian), |_| {}).await?;
        let files = self.layers.files(&made.key);
        println!(
            "{}",
            serde_json::json!({ "seconds": started.elapsed().as_secs_f64(), "root": files, "bytes": made.size_bytes })
        );
        Ok(())
    }

    /// Everything but the base goes, downloads too.
    async fn forget(&self) -> Result<(), Failure> {
        for image in self.oven.images().list()? {
            fs::remove_file(self.node.join(format!("images/{}.json", image.digest.hex())))?;
        }
        let far: Timestamp = "2200-01-01T00:00:00Z".parse()?;
        self.oven.sweep(&BTreeSet::new(), far).await?;
        let _ = fs::remove_dir_all(self.node.join("cache"));
        Ok(())
    }

    async fn cold(&self) -> Result<(), Failure> {
        self.forget().await?;
        let order = self.order("")?;
        let cold = self.bake(&order).await?;
        let mut cached = Vec::new();
        for _ in 0..20 {
            cached.push(self.bake(&order).await?);
        }
        cached.sort_by(f64::total_cmp);
        let changed = self.bake(&self.order("# changed\n")?).await?;
        println!(
            "{}",
            serde_json::json!({ "cold": cold, "cached": cached[cached.len() / 2], "changed": changed })
        );
        Ok(())
    }

    async fn many(&self, count: usize) -> Result<(), Failure> {
        for number in 0..count {
            self.bake(&self.order(&format!("# image {number}\n"))?).await?;
        }
        let images = self.oven.images().list()?.len();
        println!(
            "{}",
            serde_json::json!({ "images": images, "layers": self.node.join("layers") })
        );
        Ok(())
    }

    /// Seconds.
    async fn bake(&self, order: &BakeOrder) -> Result<f64, Fault> {
        let mut bits = [0; 8];
        getrandom::fill(&mut bits).expect("the kernel gives random bytes");
        let ticket = format!("t-{}", hex::encode(bits))
            .parse()
            .expect("it is a ticket");
        let started = Instant::now();
        self.oven.bake(&ticket, order).await?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// The three steps, the last one with a text more.
    fn order(&self, more: &str) -> Result<BakeOrder, Failure> {
        let mut tar = tar::Builder::new(Vec::new());
        for name in ["1.sh", "2.sh", "3.sh"] {
            let mut text = fs::read_to_string(self.steps.join(name))?;
            if name == "3.sh" {
                text.push_str(more);
            }
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(text.len() as u64);
            tar.append_data(&mut header, name, text.as_bytes())?;
        }
        let source: Digest = self.objects.keep(&tar.into_inner()?[..], "tar".into())?;
        Ok(BakeOrder {
            place: "acme/shop/dev".parse()?,
            source,
            base: host::base::DEBIAN.to_owned(),
            login: None,
            scripts: ["1.sh", "2.sh", "3.sh"].map(Into::into).to_vec(),
            inputs: Vec::new(),
            commit: Commit {
                id: "0".repeat(40),
                author: "Ada".to_owned(),
                message: String::new(),
                branch: "main".to_owned(),
                repository: String::new(),
                committed_at: Timestamp::UNIX_EPOCH,
            },
            trunk: None,
            timeout: SignedDuration::from_mins(10),
        })
    }
}
