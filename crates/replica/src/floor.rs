//! Stand-ins for the words of lower floors that are not there yet.

pub mod state_machine {
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct RequestId(pub u64);
    #[derive(Debug)]
    pub struct Reply;
    #[derive(Debug)]
    pub struct Error;
    #[derive(Clone, Debug)]
    pub struct LeaseChange;
    #[derive(Clone, Debug)]
    pub struct View;
}

pub mod mvcc {
    #[derive(Debug)]
    pub struct Batch;
}

pub mod store {
    #[derive(Debug)]
    pub struct Frame;
    #[derive(Debug)]
    pub struct Relocations;
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct RelocationId(pub u64);
}
