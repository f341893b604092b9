mod clock;
mod config;
mod doctor;
mod git;
mod role;
mod up;
fn main() {
    for f in doctor::examine() {
        println!("{}", doctor::line(&f));
    }
}
