//! Which instructions of this CPU multiply bf16.

use std::sync::OnceLock;

/// The instructions that multiply bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// f32 arithmetic in portable code, vectorised for the CPU.
    Portable,
    /// AVX512-BF16: `vdpbf16ps`.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// Intel AMX: multiplication of tiles.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx,
}

impl Unit {
    /// The units that this CPU and this system have, slowest first.
    pub(super) fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<Vec<Unit>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            #[cfg_attr(not(target_arch = "x86_64"), expect(unused_mut, reason = "other processors add nothing"))]
            let mut available = vec![Self::Portable];
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512bf16")
            {
                available.push(Self::Avx512);
                #[cfg(target_os = "linux")]
                if is_amx_available() {
                    available.push(Self::Amx);
                }
            }
            available
        })
    }

    pub(super) fn best() -> Self {
        *Self::available().last().expect("portable is always available")
    }
}

/// The name of the fastest unit; `None` where that is f32 arithmetic.
pub(super) fn name() -> Option<&'static str> {
    match Unit::best() {
        Unit::Portable => None,
        #[cfg(target_arch = "x86_64")]
        Unit::Avx512 => Some("avx512bf16"),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Unit::Amx => Some("amx"),
    }
}

/// Whether this CPU multiplies bf16 in tiles and this system lets it.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn is_amx_available() -> bool {
    const LEAF: u32 = 7;
    const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
    if std::arch::x86_64::__cpuid_count(0, 0).eax < LEAF
        || std::arch::x86_64::__cpuid_count(LEAF, 0).edx & BF16_AND_TILES != BF16_AND_TILES
    {
        return false;
    }
    is_amx_allowed()
}

/// Asks Linux for the tiles' state; it also answers for a system that does not save them.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn is_amx_allowed() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let result: i64;
    // SAFETY: arch_prctl(ARCH_REQ_XCOMP_PERM) takes two numbers and touches no memory of this program.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}
