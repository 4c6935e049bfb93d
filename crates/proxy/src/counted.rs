//! How many there are of something that a worker bounds.

use std::{cell::Cell, rc::Rc};

/// One of them; dropping it counts it out.
#[derive(Debug)]
pub(crate) struct Counted(Rc<Cell<usize>>);

impl Counted {
    pub(crate) fn one(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Counted(Rc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
