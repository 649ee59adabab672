//! Reading.

use dtc_participant::{Handle, Listing};
use shop_proto::{
    GetOrderRequest, GetOrderResponse, ListOrdersRequest, ListOrdersResponse,
    order_service_server::OrderService,
};
use tonic::{Request, Response, Status};

use crate::order;

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) handle: Handle,
}

#[tonic::async_trait]
impl OrderService for Service {
    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        let order_id = request.into_inner().order_id;
        let sql = "SELECT order_id, customer, lines, total_minor, currency, state, version
                   FROM orders WHERE order_id = ?1";
        let order = self.handle.get("order", order_id, sql, order::from_row).await?;
        Ok(Response::new(GetOrderResponse { order: Some(order) }))
    }

    async fn list_orders(
        &self,
        request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        let ListOrdersRequest { page_size, page_token } = request.into_inner();
        let listing = Listing {
            sql: "SELECT order_id, customer, lines, total_minor, currency, state, version
                  FROM orders WHERE order_id > ?1 ORDER BY order_id LIMIT ?2",
            item: order::from_row,
            key: |order| &order.order_id,
        };
        let (orders, next_page_token) = self.handle.list(page_size, page_token, listing).await?;
        Ok(Response::new(ListOrdersResponse { orders, next_page_token }))
    }
}
