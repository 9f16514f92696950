//! The machine that is measured on: what its kernel tells of processes, and how it is prepared.

mod interrupt;
mod kernel;
mod process;

pub(crate) use interrupt::watch;
pub(crate) use kernel::Kernel;
pub(crate) use process::{
    ATTEMPTS, Watch, available, cores, cpu_time, descriptor_limit, descriptors, family,
    forget_peak, load, memory, now, resident, slab, sockets, wait_until_quiet,
};
