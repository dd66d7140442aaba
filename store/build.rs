//! A new migration must be embedded at the next build; nothing else is done here.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
