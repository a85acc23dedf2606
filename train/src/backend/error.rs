//! Why a backend cannot compute gradients.

/// Why a device cannot be used, or failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// This binary was built without support for the device.
    #[error(
        "this binary was built without `{feature}`; build one with `train/cuda/build.sh`, or with `cargo install --path cargo-nanochat --features {feature}` where the CUDA toolkit is installed"
    )]
    NotBuilt {
        /// The missing cargo feature.
        feature: &'static str,
    },
    /// There is no such device, or it does not start.
    #[error("no CUDA device can be used: {0}; see whether `nvidia-smi` lists one, or train with --device cpu")]
    Device(candle_core::Error),
    /// The candle backend does not implement this architecture.
    #[error(
        "the model has {n_streams} residual streams, and training on a device supports one; set model.n_streams to 1 in the recipe, or train with --device cpu"
    )]
    Streams {
        /// Residual streams of the recipe's model.
        n_streams: usize,
    },
    /// A tensor operation failed.
    #[error("tensor operation: {0}")]
    Tensor(#[from] candle_core::Error),
}
