//! gRPC reflection, both versions, so that `grpcurl` works without files.

use tonic::service::Routes;
use tonic_reflection::{pb, server::Builder};

use crate::ServiceError;

const OWN_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Adds reflection that lists `services`, health and itself; `own` describes what
/// `proto` does not.
pub(crate) fn add_to(
    routes: Routes,
    services: &[String],
    own: &[u8],
) -> Result<Routes, ServiceError> {
    let v1 = builder(services, own).build_v1()?;
    let v1alpha = builder(services, own).build_v1alpha()?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}

fn builder<'a>(services: &[String], own: &'a [u8]) -> Builder<'a> {
    // Each version would list only itself beside what is registered.
    let builder = Builder::configure()
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(dtc_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(own)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // What `google.protobuf.Any` holds in the details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(pb::v1alpha::FILE_DESCRIPTOR_SET);
    // By name, because the descriptors hold services of other processes too.
    let names = services.iter().map(String::as_str).chain(OWN_SERVICES);
    names.fold(builder, |builder, name| builder.with_service_name(name))
}
