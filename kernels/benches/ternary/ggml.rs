//! The peer: ggml's ternary type TQ2_0, from the shared libraries that `pip install llama-cpp-python` builds.

use std::ffi::{c_int, c_void};
use std::path::Path;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

// Values of ggml's public header.
const F32: c_int = 0;
const TQ2_0: c_int = 35;
const BLOCK: usize = 256;
const BLOCK_BYTES: usize = 66; // 64 bytes of codes and one f16 scale

type VecDot = unsafe extern "C" fn(c_int, *mut f32, usize, *const c_void, usize, *const c_void, usize, c_int);
type FromFloat = unsafe extern "C" fn(*const f32, *mut c_void, i64);

/// `ggml_type_traits_cpu`.
#[repr(C)]
struct TypeTraits {
    from_float: Option<FromFloat>,
    vec_dot: Option<VecDot>,
    vec_dot_type: c_int,
    n_rows: i64,
}

/// `ggml_init_params`.
#[repr(C)]
struct InitParams {
    mem_size: usize,
    mem_buffer: *mut c_void,
    no_alloc: bool,
}

/// `ggml_cplan`.
#[repr(C)]
struct ComputePlan {
    work_size: usize,
    work_data: *mut u8,
    n_threads: c_int,
    thread_pool: *mut c_void,
    abort_callback: *const c_void,
    abort_callback_data: *mut c_void,
    use_ref: bool,
}

/// The functions that are called.
pub(crate) struct Ggml {
    vec_dot: VecDot,
    quantize_tq2_0: FromFloat,
    quantize_q8_k: FromFloat,
    init: unsafe extern "C" fn(InitParams) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    new_tensor_2d: unsafe extern "C" fn(*mut c_void, c_int, i64, i64) -> *mut c_void,
    mul_mat: unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_void) -> *mut c_void,
    get_data: unsafe extern "C" fn(*const c_void) -> *mut c_void,
    new_graph: unsafe extern "C" fn(*mut c_void) -> *mut c_void,
    build_forward: unsafe extern "C" fn(*mut c_void, *mut c_void),
    graph_plan: unsafe extern "C" fn(*const c_void, c_int, *mut c_void) -> ComputePlan,
    graph_compute: unsafe extern "C" fn(*mut c_void, *mut ComputePlan) -> c_int,
    // Dropping a library would unload the code that the pointers name.
    _libraries: [Library; 2],
}

impl Ggml {
    /// Opens `libggml-base.so` and `libggml-cpu.so` in a folder.
    pub(crate) fn open(folder: &Path) -> Result<Self, libloading::Error> {
        let open = |name: &str| {
            // SAFETY: ggml's libraries run nothing but their own constructors when loaded.
            unsafe { Library::open(Some(folder.join(name)), RTLD_NOW | RTLD_GLOBAL) }
        };
        let base = open("libggml-base.so")?;
        let cpu = open("libggml-cpu.so")?;
        // SAFETY: the signatures are those of ggml's public headers; `main` compares results with our own before
        // timing.
        unsafe {
            cpu.get::<unsafe extern "C" fn()>(b"ggml_cpu_init\0")?();
            let traits =
                cpu.get::<unsafe extern "C" fn(c_int) -> *const TypeTraits>(b"ggml_get_type_traits_cpu\0")?(TQ2_0);
            Ok(Self {
                vec_dot: (*traits).vec_dot.expect("TQ2_0 has a dot product"),
                quantize_tq2_0: *base.get(b"quantize_row_tq2_0_ref\0")?,
                quantize_q8_k: *cpu.get(b"quantize_row_q8_K\0")?,
                init: *base.get(b"ggml_init\0")?,
                free: *base.get(b"ggml_free\0")?,
                new_tensor_2d: *base.get(b"ggml_new_tensor_2d\0")?,
                mul_mat: *base.get(b"ggml_mul_mat\0")?,
                get_data: *base.get(b"ggml_get_data\0")?,
                new_graph: *base.get(b"ggml_new_graph\0")?,
                build_forward: *base.get(b"ggml_build_forward_expand\0")?,
                graph_plan: *cpu.get(b"ggml_graph_plan\0")?,
                graph_compute: *cpu.get(b"ggml_graph_compute\0")?,
                _libraries: [base, cpu],
            })
        }
    }

    /// Packs row-major weights; `cols` is a multiple of 256.
    pub(crate) fn pack(&self, weights: &[f32], cols: usize) -> Vec<u8> {
        assert!(cols.is_multiple_of(BLOCK));
        let mut packed = vec![0u8; weights.len() / BLOCK * BLOCK_BYTES];
        // SAFETY: a row of `cols` weights takes `cols / 256` blocks, and rows follow each other.
        unsafe { (self.quantize_tq2_0)(weights.as_ptr(), packed.as_mut_ptr().cast(), weights.len() as i64) };
        packed
    }

    /// Quantises one row as the dot product wants it (Q8_K: 292 bytes for 256 numbers).
    pub(crate) fn quantize(&self, x: &[f32]) -> Vec<u8> {
        let mut quantized = vec![0u8; x.len() / BLOCK * 292];
        // SAFETY: `x` is a multiple of 256 long and `quantized` has 292 bytes for each.
        unsafe { (self.quantize_q8_k)(x.as_ptr(), quantized.as_mut_ptr().cast(), x.len() as i64) };
        quantized
    }

    /// y = W · x, one dot product a row: what `ggml_mul_mat` does for one column, without its graph and barriers.
    pub(crate) fn gemv(&self, packed: &[u8], quantized: &[u8], cols: usize, y: &mut [f32]) {
        let row_bytes = cols / BLOCK * BLOCK_BYTES;
        assert!(packed.len() == y.len() * row_bytes && quantized.len() == cols / BLOCK * 292);
        for (row, y) in packed.chunks_exact(row_bytes).zip(y) {
            // SAFETY: both sides have `cols` numbers.
            unsafe { (self.vec_dot)(cols as c_int, y, 0, row.as_ptr().cast(), 0, quantized.as_ptr().cast(), 0, 1) };
        }
    }

    /// A graph of one `ggml_mul_mat`, on one thread; x `[n, cols]` is quantised in each run, as ggml does.
    pub(crate) fn product(&self, weights: &[f32], cols: usize, x: &[f32]) -> Product<'_> {
        let (rows, n) = (weights.len() / cols, x.len() / cols);
        let packed = self.pack(weights, cols);
        // SAFETY: ggml's documented use: the context owns the tensors, the sizes of their data follow from type and
        // shape, and everything lives until `free`.
        unsafe {
            let mem_size = packed.len() + (x.len() + n * rows) * 4 + (16 << 20);
            let context = (self.init)(InitParams { mem_size, mem_buffer: std::ptr::null_mut(), no_alloc: false });
            assert!(!context.is_null(), "ggml_init failed");
            let w = (self.new_tensor_2d)(context, TQ2_0, cols as i64, rows as i64);
            let input = (self.new_tensor_2d)(context, F32, cols as i64, n as i64);
            std::ptr::copy_nonoverlapping(packed.as_ptr(), (self.get_data)(w).cast(), packed.len());
            std::ptr::copy_nonoverlapping(x.as_ptr(), (self.get_data)(input).cast(), x.len());
            let output = (self.mul_mat)(context, w, input);
            let graph = (self.new_graph)(context);
            (self.build_forward)(graph, output);
            let mut plan = (self.graph_plan)(graph, 1, std::ptr::null_mut());
            let mut work = vec![0u8; plan.work_size];
            plan.work_data = work.as_mut_ptr();
            Product { ggml: self, context, graph, plan, _work: work, output, n_outputs: n * rows }
        }
    }
}

/// A product that can be run again and again.
pub(crate) struct Product<'a> {
    ggml: &'a Ggml,
    context: *mut c_void,
    graph: *mut c_void,
    plan: ComputePlan,
    _work: Vec<u8>,
    output: *mut c_void,
    n_outputs: usize,
}

impl Product<'_> {
    pub(crate) fn run(&mut self) {
        // SAFETY: graph, plan and its work buffer are alive.
        let status = unsafe { (self.ggml.graph_compute)(self.graph, &mut self.plan) };
        assert_eq!(status, 0, "ggml_graph_compute failed");
    }

    pub(crate) fn output(&self) -> &[f32] {
        // SAFETY: the tensor holds this many numbers for as long as the context lives.
        unsafe { std::slice::from_raw_parts((self.ggml.get_data)(self.output).cast(), self.n_outputs) }
    }
}

impl Drop for Product<'_> {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_init`, freed once.
        unsafe { (self.ggml.free)(self.context) };
    }
}
