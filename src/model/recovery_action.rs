//! What the driver asks for to recover a GPU.

/// An `nvmlDeviceGpuRecoveryAction_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecoveryAction {
    /// Nothing.
    None,
    /// Reset the GPU.
    GpuReset,
    /// Reboot the node.
    NodeReboot,
    /// Stop all peer-to-peer traffic, and read the action again.
    DrainP2p,
    /// Let running work end, then reset the GPU.
    DrainAndReset,
    /// Recover the IMEX domain.
    RecoverImexDomain,
    /// Reset the PCIe bus of the GPU.
    BusReset,
    /// Reboot the whole system.
    SystemReboot,
    /// An action of a newer driver.
    Unknown,
}

impl RecoveryAction {
    /// The action with this number.
    #[must_use]
    pub fn of(number: f64) -> Self {
        const ALL: [RecoveryAction; 8] = [
            RecoveryAction::None,
            RecoveryAction::GpuReset,
            RecoveryAction::NodeReboot,
            RecoveryAction::DrainP2p,
            RecoveryAction::DrainAndReset,
            RecoveryAction::RecoverImexDomain,
            RecoveryAction::BusReset,
            RecoveryAction::SystemReboot,
        ];
        let numbered = (0_u8..).zip(ALL).find(|(n, _)| f64::from(*n).to_bits() == number.to_bits());
        numbered.map_or(Self::Unknown, |(_, action)| action)
    }

    /// What an operator has to do; `None` if nothing.
    #[must_use]
    pub fn words(self) -> Option<&'static str> {
        Some(match self {
            Self::None => return None,
            Self::GpuReset => "reset the GPU",
            Self::NodeReboot => "reboot the node",
            Self::DrainP2p => "stop peer-to-peer traffic",
            Self::DrainAndReset => "drain the node, then reset the GPU",
            Self::RecoverImexDomain => "recover the IMEX domain",
            Self::BusReset => "reset the PCIe bus of the GPU",
            Self::SystemReboot => "reboot the system",
            Self::Unknown => "an action that only a newer exporter knows: see nvidia-smi -q",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_have_the_numbers_of_the_header() {
        assert_eq!(RecoveryAction::of(0.0).words(), None);
        assert_eq!(RecoveryAction::of(4.0), RecoveryAction::DrainAndReset);
        assert_eq!(RecoveryAction::of(7.0), RecoveryAction::SystemReboot);
        assert_eq!(RecoveryAction::of(8.0), RecoveryAction::Unknown);
    }
}
