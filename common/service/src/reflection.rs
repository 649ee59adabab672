//! gRPC reflection, both versions, so that `grpcurl` works without files.

use tonic::service::Routes;
use tonic_reflection::{pb, server::Builder};

use crate::ServiceError;

const OWN_SERVICES: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// Adds reflection that lists `services`, health and itself; `descriptors` describe the
/// services.
pub(crate) fn add_to(
    routes: Routes,
    services: &[String],
    descriptors: &[&[u8]],
) -> Result<Routes, ServiceError> {
    let v1 = builder(services, descriptors).build_v1()?;
    let v1alpha = builder(services, descriptors).build_v1alpha()?;
    Ok(routes.add_service(v1).add_service(v1alpha))
}

fn builder<'a>(services: &[String], descriptors: &[&'a [u8]]) -> Builder<'a> {
    // Each version would list only itself beside what is registered.
    let builder = Builder::configure()
        .include_reflection_service(false)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // What `google.protobuf.Any` holds in the details of errors.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(pb::v1::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(pb::v1alpha::FILE_DESCRIPTOR_SET);
    let builder = descriptors
        .iter()
        .fold(builder, |builder, encoded| builder.register_encoded_file_descriptor_set(encoded));
    // By name, because the descriptors hold services of other processes too.
    let names = services.iter().map(String::as_str).chain(OWN_SERVICES);
    names.fold(builder, |builder, name| builder.with_service_name(name))
}
