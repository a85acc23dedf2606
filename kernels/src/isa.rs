//! Instruction sets as witnesses: holding an [`Isa`] proves that this CPU has it.

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Isa(Level);

/// The instruction sets that have routines of their own, slowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Portable Rust, the reference.
    Scalar,
    /// AVX2 with FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX2 with FMA and AVX-VNNI.
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    /// AVX-512 F, BW, DQ, VL and VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// NEON with dot product.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod,
}

impl Isa {
    /// Portable code, which every CPU runs: the reference that the others are compared with.
    pub const SCALAR: Self = Self(Level::Scalar);

    /// All instruction sets that this CPU has, slowest first.
    pub fn available() -> Vec<Self> {
        #[cfg_attr(
            not(any(target_arch = "x86_64", target_arch = "aarch64")),
            expect(unused_mut, reason = "other processors have nothing to add")
        )]
        let mut available = vec![Self::SCALAR];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                available.push(Self(Level::Avx2));
                if is_x86_feature_detected!("avxvnni") {
                    available.push(Self(Level::AvxVnni));
                }
                if is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
                {
                    available.push(Self(Level::Avx512));
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            available.push(Self(Level::NeonDotprod));
        }
        available
    }

    /// The fastest instruction set that this CPU has.
    pub fn best() -> Self {
        *Self::available().last().expect("scalar is always available")
    }

    /// The name in tables and reports: `scalar`, `avx2`, `avxvnni`, `avx512vnni` or `neon-dotprod`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Level::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512vnni",
            #[cfg(target_arch = "aarch64")]
            Level::NeonDotprod => "neon-dotprod",
        }
    }

    pub(crate) fn level(self) -> Level {
        self.0
    }
}

/// Compiles one body for every instruction set and calls the one that `isa` proves.
///
/// The body is plain Rust, generic over the sixteen-wide values `V` of [`crate::lanes`]; the compiler vectorises the
/// rest with what the feature allows. Rust never reorders or contracts floating-point operations, and `mul_add` rounds
/// once everywhere, so all versions agree bit for bit.
macro_rules! compiled_per_isa {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident<$lanes:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block
    ) => {
        $(#[$meta])*
        $vis fn $name(isa: $crate::isa::Isa, $($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body<$lanes: $crate::lanes::F32x16>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::lanes::Avx2>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,fma")]
            fn avx512($($arg: $ty),*) $(-> $ret)? {
                body::<$crate::lanes::Avx512>($($arg),*)
            }
            match isa.level() {
                $crate::isa::Level::Scalar => body::<$crate::lanes::Portable>($($arg),*),
                #[cfg(target_arch = "x86_64")]
                // SAFETY: this level exists only where `Isa::available` found AVX2 and FMA.
                $crate::isa::Level::Avx2 | $crate::isa::Level::AvxVnni => unsafe { avx2($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: this level exists only where `Isa::available` found these AVX-512 features.
                $crate::isa::Level::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "aarch64")]
                // Every aarch64 has NEON: the compiler uses it for the portable body.
                $crate::isa::Level::NeonDotprod => body::<$crate::lanes::Portable>($($arg),*),
            }
        }
    };
}
pub(crate) use compiled_per_isa;

/// How far ahead of the bytes in use a software prefetch reaches, in bytes.
#[cfg(target_arch = "x86_64")]
pub(crate) const PREFETCH: usize = 8192;

/// acc + dot4(w, four columns of x).
#[cfg(target_arch = "aarch64")]
macro_rules! dot4 {
    ($acc:expr, $w:expr, $x:expr, $lane:literal) => {{
        let mut acc: std::arch::aarch64::int32x4_t = $acc;
        // SAFETY: registers only; the functions that use this have the feature.
        unsafe {
            std::arch::asm!(
                concat!("sdot {acc:v}.4s, {w:v}.16b, {x:v}.4b[", $lane, "]"),
                acc = inout(vreg) acc,
                w = in(vreg) $w,
                x = in(vreg) $x,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        acc
    }};
}
#[cfg(target_arch = "aarch64")]
pub(crate) use dot4;
