//! A claim under which a container has a device (dynamic resource allocation).

/// A claim, and the device as its driver names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// Name of the `ResourceClaim`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The driver that offers the device.
    pub driver: String,
    /// The pool that the device is of.
    pub pool: String,
    /// Its name in the pool.
    pub device: String,
    /// Profile of a MIG device; empty for a whole GPU.
    pub mig_profile: String,
    /// UUID of a MIG device; empty for a whole GPU.
    pub mig_uuid: String,
}

/// What stands on a device that nobody has by a claim.
pub static NO_CLAIM: Claim = Claim {
    name: String::new(),
    namespace: String::new(),
    driver: String::new(),
    pool: String::new(),
    device: String::new(),
    mig_profile: String::new(),
    mig_uuid: String::new(),
};
