//! Orders that name the versions that they have read: of those that saw the same
//! one, one commits.

use bytes::{Bytes, BytesMut};
use dtc_proto::{
    decode_payload,
    dtc::{ExecuteRequest, Payload, payload},
};
use prost::Message;
use shop_proto::{
    GetAccountRequest, GetStockRequest, ReserveStock, TakePayment,
    inventory_service_client::InventoryServiceClient, payment_service_client::PaymentServiceClient,
};
use tonic::{Status, transport::Channel};

use super::{kind::Kind, plan::Order, template::Templates};

/// Reads versions.
#[derive(Debug, Clone)]
pub(crate) struct Versions {
    pub(crate) inventory: InventoryServiceClient<Channel>,
    pub(crate) payment: PaymentServiceClient<Channel>,
}

impl Versions {
    /// The request of an order, with the versions as they are now.
    pub(crate) async fn request(
        mut self,
        templates: &Templates,
        order: &Order,
    ) -> Result<Bytes, Status> {
        let mut bytes = BytesMut::new();
        templates.request(order, &mut bytes);
        let broken = |error: &dyn std::error::Error| Status::internal(error.to_string());
        let mut request = ExecuteRequest::decode(bytes.freeze()).map_err(|error| broken(&error))?;
        let kinds = templates.plan().branches().map(|(kind, _)| kind);
        for (branch, kind) in request.branches.iter_mut().zip(kinds) {
            let payload = branch.payload.as_ref();
            let message = match kind {
                Kind::Inventory => {
                    let mut stock: ReserveStock = decode_payload(&shop_proto::DESCRIPTORS, payload)
                        .map_err(|error| broken(&error))?;
                    for line in &mut stock.lines {
                        line.expected_version = self.stock(line.sku.clone()).await?;
                    }
                    stock.encode_to_vec()
                }
                Kind::Payment => {
                    let mut payment: TakePayment =
                        decode_payload(&shop_proto::DESCRIPTORS, payload)
                            .map_err(|error| broken(&error))?;
                    payment.expected_version = self.account(payment.account.clone()).await?;
                    payment.encode_to_vec()
                }
                Kind::Order => continue,
            };
            branch.payload = Some(Payload { kind: Some(payload::Kind::Typed(message.into())) });
        }
        Ok(request.encode_to_vec().into())
    }

    async fn stock(&mut self, sku: String) -> Result<Option<u64>, Status> {
        let answer = self.inventory.get_stock(GetStockRequest { sku }).await?.into_inner();
        Ok(answer.stock.map(|stock| stock.version))
    }

    async fn account(&mut self, account: String) -> Result<Option<u64>, Status> {
        let answer = self.payment.get_account(GetAccountRequest { account }).await?.into_inner();
        Ok(answer.account.map(|account| account.version))
    }
}
