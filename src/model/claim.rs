//! Resource claims of dynamic resource allocation (DRA).

/// A `ResourceClaim` and the device that is allocated to it, as the DRA driver names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// `metadata.name` of the `ResourceClaim`.
    pub name: String,
    /// `metadata.namespace` of the `ResourceClaim`.
    pub namespace: String,
    /// Name of the DRA driver that publishes the device.
    pub driver: String,
    /// Pool of the device.
    pub pool: String,
    /// Name of the device in the pool.
    pub device: String,
    /// Profile of a MIG device; empty for a whole GPU.
    pub mig_profile: String,
    /// UUID of a MIG device; empty for a whole GPU.
    pub mig_uuid: String,
}

/// The value for a device that is not allocated by a claim.
pub static NO_CLAIM: Claim = Claim {
    name: String::new(),
    namespace: String::new(),
    driver: String::new(),
    pool: String::new(),
    device: String::new(),
    mig_profile: String::new(),
    mig_uuid: String::new(),
};
