//! What a measurement is valid for: a processor, its number of cores, a version of the routines.

use serde::{Deserialize, Serialize};

use super::Unfit;
use crate::isa::Isa;

/// A machine, as far as speed is concerned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Vendor, family, model and stepping, and the instruction sets.
    pub cpu: String,
    /// Cores that this process may use.
    pub n_cores: usize,
    /// Version of this crate.
    pub version: String,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> Self {
        let isas: Vec<_> = Isa::available().into_iter().map(Isa::name).collect();
        Self {
            cpu: format!("{}; {}", processor(), isas.join(" ")),
            n_cores: std::thread::available_parallelism().map_or(1, usize::from),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Whether what was measured on `self` holds on `here`.
    pub(super) fn check(&self, here: &Self) -> Result<(), Unfit> {
        let short = |text: &str| text.chars().take(120).collect::<String>();
        if self.version != here.version {
            return Err(Unfit::Stale { found: short(&self.version), expected: here.version.clone() });
        }
        let describe = |machine: &Self| format!("{}; {} cores", short(&machine.cpu), machine.n_cores);
        if (&self.cpu, self.n_cores) != (&here.cpu, here.n_cores) {
            return Err(Unfit::Foreign { found: describe(self), expected: describe(here) });
        }
        Ok(())
    }
}

/// `AuthenticAMD family 26 model 2 stepping 1`.
#[cfg(target_arch = "x86_64")]
fn processor() -> String {
    use std::arch::x86_64::__cpuid;
    let vendor = __cpuid(0);
    let name: Vec<u8> = [vendor.ebx, vendor.edx, vendor.ecx].into_iter().flat_map(u32::to_le_bytes).collect();
    // Extended family and model are added as the vendors' manuals say.
    let version = __cpuid(1).eax;
    let (family, model, stepping) = (version >> 8 & 15, version >> 4 & 15, version & 15);
    let model = if family == 6 || family == 15 { model + (version >> 16 & 15) * 16 } else { model };
    let family = if family == 15 { family + (version >> 20 & 255) } else { family };
    format!("{} family {family} model {model} stepping {stepping}", String::from_utf8_lossy(&name))
}

/// The identification register that Linux shows of the first processor, or the architecture's name.
#[cfg(not(target_arch = "x86_64"))]
fn processor() -> String {
    let register = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/regs/identification/midr_el1");
    format!("{} {}", std::env::consts::ARCH, register.as_deref().unwrap_or_default().trim()).trim().to_owned()
}
