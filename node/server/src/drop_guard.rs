//! Runs a piece of code when a scope ends, however it ends.

/// Calls a closure when it is dropped.
pub struct DropGuard<F: FnMut()>(pub F);

impl<F: FnMut()> Drop for DropGuard<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
