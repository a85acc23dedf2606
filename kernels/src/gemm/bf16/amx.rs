//! AMX: eight tile registers of 16 rows of 64 bytes. Four hold 32 × 32 sums, two each side.
//!
//! The instructions are written out because Rust's intrinsics for them are not stable. A thread must name the tiles'
//! shapes before it uses them, and gives them back so that the system need not save them; Linux must have been asked
//! once per process.

use std::arch::asm;

use crate::gemm::block::Block;
use crate::gemm::pack::bf16::Bf16Line;
use crate::lanes::LANES;
use crate::output::Write;

/// Rows and columns of the sums of four tiles.
const TILE: usize = 2 * LANES;

/// What `ldtilecfg` reads: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 8],
    reserved_too: [u16; 8],
    rows: [u8; 8],
    reserved_last: [u8; 8],
}

static TILE_CONFIG: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64; 8],
    reserved_too: [0; 8],
    rows: [16; 8],
    reserved_last: [0; 8],
};

/// The sums of a block. Rows of `a` are padded to a multiple of 32.
///
/// # Safety
/// `Unit::available` has [`Unit::Amx`](crate::gemm::unit::Unit).
pub(super) unsafe fn tiles(a: &[Bf16Line], block: &Block<'_>, out: &mut [f32]) {
    let n_lines = block.n_lines();
    // Checked here once for the pointers below.
    assert!(a.len() >= block.m.next_multiple_of(TILE) * n_lines);
    assert!(out.len() >= (block.m - 1) * block.stride + block.n.len());
    // SAFETY: the caller's promise; the shapes are 64 bytes.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const TILE_CONFIG, options(nostack, readonly)) };
    // Rows in the outer loop: the output is visited in memory order, and the tiles of the left side stay in L1.
    for row in (0..block.m).step_by(TILE) {
        let n_rows = TILE.min(block.m - row);
        for first in block.n.clone().step_by(TILE) {
            let width = TILE.min(block.n.end - first);
            let low = block.lines(first);
            // A missing panel is replaced by its neighbour: those sums are not written.
            let high = if width > LANES { block.lines(first + LANES) } else { low };
            let sums = Sums {
                lhs: a[row * n_lines..].as_ptr(),
                n_lines,
                rhs: [low.as_ptr(), high.as_ptr()],
                add: block.write == Write::Add,
            };
            let out = &mut out[row * block.stride + first - block.n.start..];
            if n_rows == TILE && width == TILE {
                // SAFETY: `out` holds 32 rows of 32 numbers, as asserted above; both operands have `n_lines` lines a
                // row and 16 · `n_lines` lines a panel.
                unsafe { sums.write(out.as_mut_ptr(), block.stride) };
                continue;
            }
            let mut whole = [0.0; TILE * TILE];
            let places =
                || (0..n_rows).map(|r| (r * TILE..r * TILE + width, r * block.stride..r * block.stride + width));
            if sums.add {
                places().for_each(|(inner, outer)| whole[inner].copy_from_slice(&out[outer]));
            }
            // SAFETY: as above, into 32 rows of 32.
            unsafe { sums.write(whole.as_mut_ptr(), TILE) };
            places().for_each(|(inner, outer)| out[outer].copy_from_slice(&whole[inner]));
        }
    }
    // SAFETY: the tiles were configured above.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// 32 × 32 sums over all k of a block.
struct Sums {
    lhs: *const Bf16Line,
    n_lines: usize,
    rhs: [*const Bf16Line; 2],
    add: bool,
}

impl Sums {
    /// # Safety
    /// `lhs` points to 32 rows of `n_lines` lines, each of `rhs` to 16 · `n_lines` lines, and `out` to 32 rows of 32
    /// numbers, `stride` apart; `n_lines` is not 0; the tiles are configured.
    unsafe fn write(&self, out: *mut f32, stride: usize) {
        let left_stride = self.n_lines * size_of::<Bf16Line>();
        let out_stride = stride * size_of::<f32>();
        // SAFETY: each load and store is of 16 rows of 64 bytes of what the caller promised.
        unsafe {
            asm!(
                "test {add}, {add}",
                "jz 3f",
                "tileloadd tmm0, [{out} + {out_stride}]",
                "tileloadd tmm1, [{out} + {out_stride} + 64]",
                "tileloadd tmm2, [{below} + {out_stride}]",
                "tileloadd tmm3, [{below} + {out_stride} + 64]",
                "jmp 2f",
                "3:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "2:",
                "tileloadd tmm4, [{upper} + {left_stride}]",
                "tileloadd tmm6, [{near} + {line}]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "tileloadd tmm7, [{far} + {line}]",
                "tdpbf16ps tmm1, tmm4, tmm7",
                "tileloadd tmm5, [{lower} + {left_stride}]",
                "tdpbf16ps tmm2, tmm5, tmm6",
                "tdpbf16ps tmm3, tmm5, tmm7",
                "add {upper}, 64",
                "add {lower}, 64",
                "add {near}, 1024",
                "add {far}, 1024",
                "dec {n}",
                "jnz 2b",
                "tilestored [{out} + {out_stride}], tmm0",
                "tilestored [{out} + {out_stride} + 64], tmm1",
                "tilestored [{below} + {out_stride}], tmm2",
                "tilestored [{below} + {out_stride} + 64], tmm3",
                add = in(reg) u64::from(self.add),
                out = in(reg) out,
                out_stride = in(reg) out_stride,
                below = in(reg) out.byte_add(LANES * out_stride),
                left_stride = in(reg) left_stride,
                line = in(reg) size_of::<Bf16Line>(),
                upper = inout(reg) self.lhs => _,
                lower = inout(reg) self.lhs.byte_add(LANES * left_stride) => _,
                near = inout(reg) self.rhs[0] => _,
                far = inout(reg) self.rhs[1] => _,
                n = inout(reg) self.n_lines => _,
                options(nostack),
            );
        }
    }
}
