//! Requests that are encoded otherwise than prost would.

use dtc_proto::dtc::{Branch, ExecuteRequest, ExecuteResponse};
use prost::{
    Message,
    bytes::{Buf, BufMut},
};
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = ExecuteResponse;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = ExecuteResponse;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<ExecuteResponse>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        ExecuteResponse::decode(bytes).map(Some).map_err(|it| Status::internal(it.to_string()))
    }
}

/// Calls `Execute` with these bytes.
pub(crate) async fn execute(channel: Channel, bytes: Vec<u8>) -> Result<ExecuteResponse, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = "/dtc.v1.TransactionService/Execute".parse().expect("a path");
    Ok(client.unary(Request::new(bytes), path, Raw).await?.into_inner())
}

/// The request with the entries of its JSON payloads, and its own fields, in
/// the opposite order.
pub(crate) fn reversed(request: &ExecuteRequest) -> Vec<u8> {
    let without_branches = ExecuteRequest { branches: vec![], ..request.clone() };
    let mut bytes = without_branches.encode_to_vec();
    for branch in &request.branches {
        put(2, &reversed_branch(branch), &mut bytes);
    }
    bytes
}

fn reversed_branch(branch: &Branch) -> Vec<u8> {
    let Some(dtc_proto::dtc::payload::Kind::Json(object)) =
        branch.payload.as_ref().and_then(|payload| payload.kind.as_ref())
    else {
        return branch.encode_to_vec();
    };
    let mut entries = Vec::new();
    for (name, value) in object.fields.iter().rev() {
        let one = prost_types::Struct { fields: [(name.clone(), value.clone())].into() };
        entries.extend(one.encode_to_vec());
    }
    let (mut payload, mut bytes) = (Vec::new(), Vec::new());
    put(2, &entries, &mut payload);
    put(2, &payload, &mut bytes);
    put(1, branch.participant.as_bytes(), &mut bytes);
    bytes
}

fn put(field: u32, value: &[u8], bytes: &mut Vec<u8>) {
    prost::encoding::bytes::encode(field, &value.to_vec(), bytes);
}
