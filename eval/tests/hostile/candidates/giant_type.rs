//! A type whose name doubles with each line.
pub fn f() {
    let a = |x: u8| x;
    let a = (a, a);
    let a = (a, a, a, a, a, a, a, a);
    let a = (a, a, a, a, a, a, a, a);
    let a = (a, a, a, a, a, a, a, a);
    let a = (a, a, a, a, a, a, a, a);
    let a = (a, a, a, a, a, a, a, a);
    let a = (a, a, a, a, a, a, a, a);
    let a = (a, a, a, a, a, a, a, a);
    let a = (a, a, a, a, a, a, a, a);
    let _: () = a;
}
