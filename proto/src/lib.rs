//! The wire: `dtc.v1` as Rust types, their descriptors for reflection, and
//! payloads that may be protobuf or JSON.

pub mod json;
pub mod marker;
mod payload;
#[cfg(feature = "reflection")]
mod reflection;

#[cfg(feature = "reflection")]
pub use reflection::{DESCRIPTORS, Descriptors, PayloadError, decode_payload};

/// The encoded `FileDescriptorSet` of `dtc.v1` and what it imports.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
mod generated {
    pub mod dtc {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/dtc.v1.rs"));
        }
    }
    pub mod google {
        pub mod rpc {
            include!(concat!(env!("OUT_DIR"), "/google.rpc.rs"));
        }
    }
}

/// The protocol of the coordinator.
pub use generated::dtc::v1 as dtc;
/// gRPC's own status message.
pub use generated::google::rpc;
