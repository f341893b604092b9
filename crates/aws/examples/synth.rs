//! How fast templates are made: `cargo run -p aws --release --example synth -- 1000`.
//!
//! So many environments, each with hosts in two halves, a database, names, alarms and deployments, as YAML; in files of a directory
//! that is named after the number. Prints figures as JSON.

use std::time::Instant;

use aws::synth::{Config, Priorities, environment};
use model::spec;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CONFIG: &str = "[foundations.production]\nregion = 'eu-central-1'\ndomain = 'apps.example.com'\n";

fn main() {
    let count: usize = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_000);
    let out = std::env::args().nth(2).map(std::path::PathBuf::from);
    let config: Config = toml::from_str(CONFIG).expect("the configuration is sound");
    let label = "production".parse().expect("it is a label");
    let mut priorities = Priorities::default();
    let from = Instant::now();
    let (mut bytes, mut resources, mut largest) = (0, 0, 0);
    for n in 0..count {
        let yaml = format!(
            "app: app{n}\nhost: {{ env: {{ LOG_LEVEL: info }} }}\ndatabase: {{ engine: mariadb }}\n\
             environments: {{ live: {{ scaling: {{ min: 2, max: 8 }} }} }}\n"
        );
        let (app, _) = spec::App::parse(&yaml, "vend.yaml", &|_| true).expect("the app is sound");
        let stack = environment(&config, &app.app, &app.environments[0], &label, &mut priorities);
        let stack = stack.expect("the environment is sound");
        let text = stack.template.yaml();
        bytes += text.len();
        resources += stack.template.resources.len();
        largest = largest.max(text.len());
        if let Some(out) = &out {
            std::fs::write(out.join(format!("{}.yaml", stack.name)), &text).expect("the directory is there");
        }
        std::hint::black_box(text);
    }
    let seconds = from.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| {
        line.strip_prefix("VmHWM:")?
            .split_whitespace()
            .next()?
            .parse::<f64>()
            .ok()
    });
    println!(
        "{{\"seconds\":{seconds},\"resources\":{resources},\"bytes\":{bytes},\"largest\":{largest},\"peak_mb\":{}}}",
        peak.unwrap_or(f64::NAN) / 1e3
    );
}
