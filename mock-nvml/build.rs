//! Link flags of the shared library.

fn main() {
    // dlclose must not end the world: a client that closes the library and opens it again meets the
    // same machine at a later time, as it would with a real driver.
    println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nodelete");
    println!("cargo::rerun-if-changed=build.rs");
}
