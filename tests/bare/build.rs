//! Links the guest's object into the test. `cargo xtask test --only bare` builds it, and says where it is.

use std::env;

const GUEST: &str = "SHMBUS_BARE_GUEST";

fn main() {
    println!("cargo::rerun-if-env-changed={GUEST}");
    match env::var(GUEST) {
        Ok(path) => {
            println!("cargo::rerun-if-changed={path}");
            println!("cargo::rustc-link-arg-tests={path}");
        }
        Err(_) => println!("cargo::error=`cargo xtask test --only bare` builds the guest first"),
    }
}
