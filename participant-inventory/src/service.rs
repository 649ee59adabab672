//! Set-up and reading.

use dtc_participant::{Handle, Listing, fields};
use shop_proto::{
    GetStockRequest, GetStockResponse, ListStockRequest, ListStockResponse, SetStockRequest,
    SetStockResponse, inventory_service_server::InventoryService,
};
use tonic::{Request, Response, Status};

use crate::stock;

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) handle: Handle,
}

#[tonic::async_trait]
impl InventoryService for Service {
    async fn set_stock(
        &self,
        request: Request<SetStockRequest>,
    ) -> Result<Response<SetStockResponse>, Status> {
        let SetStockRequest { sku, on_hand } = request.into_inner();
        fields::name("sku", &sku)?;
        // Half, so that what is undone later has room to come back to.
        fields::number("INVALID_QUANTITY", "on_hand", on_hand, 0..=i64::MAX / 2)?;
        let write =
            move |transaction: &rusqlite::Transaction<'_>| stock::set(transaction, &sku, on_hand);
        let stock = self.handle.write(write).await?;
        Ok(Response::new(SetStockResponse { stock: Some(stock) }))
    }

    async fn get_stock(
        &self,
        request: Request<GetStockRequest>,
    ) -> Result<Response<GetStockResponse>, Status> {
        let sku = request.into_inner().sku;
        let sql = "SELECT sku, on_hand, reserved, version FROM stock WHERE sku = ?1";
        let stock = self.handle.get("SKU", sku, sql, stock::from_row).await?;
        Ok(Response::new(GetStockResponse { stock: Some(stock) }))
    }

    async fn list_stock(
        &self,
        request: Request<ListStockRequest>,
    ) -> Result<Response<ListStockResponse>, Status> {
        let ListStockRequest { page_size, page_token } = request.into_inner();
        let listing = Listing {
            sql: "SELECT sku, on_hand, reserved, version FROM stock
                  WHERE sku > ?1 ORDER BY sku LIMIT ?2",
            item: stock::from_row,
            key: |stock| &stock.sku,
        };
        let (stock, next_page_token) = self.handle.list(page_size, page_token, listing).await?;
        Ok(Response::new(ListStockResponse { stock, next_page_token }))
    }
}
