//! Builds what runs in guests, so that the first test that needs it does not have to wait for it.

fn main() -> Result<(), shmbus_vm::Error> {
    for (name, path) in shmbus_vm::build_programs()? {
        println!("{name}: {}", path.display());
    }
    Ok(())
}
