//! Where the gradients of a step are taken.

use super::error::BackendError;

/// Where the gradients of a step are taken. Weights and momenta lie in memory, and held-out figures are the CPU's, on
/// either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// By the fused operations, on the cores of this machine.
    #[default]
    Cpu,
    /// By candle's operations on the first NVIDIA GPU; in binaries that are built with the feature `cuda`.
    Cuda,
}

impl Device {
    /// Refuses a device that this binary was built without, before any work is done.
    pub fn check(self) -> Result<(), BackendError> {
        match self {
            Self::Cuda if !cfg!(feature = "cuda") => Err(BackendError::NotBuilt { feature: "cuda" }),
            Self::Cpu | Self::Cuda => Ok(()),
        }
    }

    /// candle's name of it; fails where there is no such device.
    pub(crate) fn open(self) -> Result<candle_core::Device, BackendError> {
        self.check()?;
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            Self::Cuda => candle_core::Device::new_cuda(0).map_err(BackendError::Device),
        }
    }
}
