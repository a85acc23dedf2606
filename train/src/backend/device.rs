//! The devices that gradients can be computed on.

use super::error::BackendError;

/// Device that the gradients of a step are computed on. With either, weights and moments are kept in main memory, and
/// held-out figures are computed on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The cores of this machine, by the fused operations.
    #[default]
    Cpu,
    /// The first NVIDIA GPU, by candle's operations; in binaries built with the feature `cuda`.
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

    /// Opens the device for candle; fails where there is none.
    pub(crate) fn open(self) -> Result<candle_core::Device, BackendError> {
        self.check()?;
        match self {
            Self::Cpu => Ok(candle_core::Device::Cpu),
            Self::Cuda => candle_core::Device::new_cuda(0).map_err(BackendError::Device),
        }
    }
}
