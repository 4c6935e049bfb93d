//! The program as a whole, from outside: `sealane up` and what it serves.

mod startup;
