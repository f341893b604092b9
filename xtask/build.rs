//! Hands the target's name to the program, which needs it to find the binaries that cargo builds.

fn main() {
    let target = std::env::var("TARGET").expect("cargo sets TARGET for build scripts");
    println!("cargo::rustc-env=TARGET={target}");
}
