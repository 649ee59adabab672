//! Requests without building them: a request is encoded once, with placeholders
//! for what differs. All names have a fixed width, so that every other one is a
//! copy with its own names written over.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use dtc_proto::dtc::{Branch, ExecuteRequest, Lock, LockMode, Payload, payload};
use prost::{Message, encoding};
use shop_proto::{OrderLine, PlaceOrder, ReserveStock, StockLine, TakePayment};

use super::{
    kind::Kind,
    plan::{
        AMOUNT, CURRENCY, Excess, Order, Plan, QUANTITY, TOO_MUCH_MONEY, TOO_MUCH_STOCK,
        account_name, sku_name,
    },
};

/// Requests of one plan.
#[derive(Debug)]
pub(crate) struct Templates {
    plan: Arc<Plan>,
    good: Template,
    too_much_stock: Template,
    too_much_money: Template,
}

#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

/// Where a name goes.
#[derive(Debug)]
struct Slot {
    offset: usize,
    part: Part,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Key,
    Sku(u32),
    Account(u32),
    Order(u32),
}

impl Templates {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            good: Template::new(&plan, None),
            too_much_stock: Template::new(&plan, Some(Excess::Stock)),
            too_much_money: Template::new(&plan, Some(Excess::Money)),
            plan: Arc::new(plan),
        }
    }

    /// What the orders look like.
    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Appends an encoded `ExecuteRequest`.
    pub(crate) fn request(&self, order: &Order, out: &mut BytesMut) {
        let template = self.of(order);
        let start = out.len();
        out.extend_from_slice(&template.bytes);
        for slot in &template.slots {
            self.fill(order, slot.part, &mut out[start + slot.offset..]);
        }
    }

    /// Appends an encoded `ExecuteStreamItem` as one of a message's items.
    pub(crate) fn item(&self, tag: u64, order: &Order, out: &mut BytesMut) {
        const FIRST: u8 = 1 << 3 | 2;
        const TAG: u8 = 1 << 3;
        const REQUEST: u8 = 2 << 3 | 2;
        let length = self.of(order).bytes.len() as u64;
        let varint = |value| encoding::encoded_len_varint(value) as u64;
        out.put_u8(FIRST);
        encoding::encode_varint(2 + varint(tag) + varint(length) + length, out);
        out.put_u8(TAG);
        encoding::encode_varint(tag, out);
        out.put_u8(REQUEST);
        encoding::encode_varint(length, out);
        self.request(order, out);
    }

    fn of(&self, order: &Order) -> &Template {
        match order.excess {
            None => &self.good,
            Some(Excess::Stock) => &self.too_much_stock,
            Some(Excess::Money) => &self.too_much_money,
        }
    }

    fn fill(&self, order: &Order, part: Part, out: &mut [u8]) {
        match part {
            Part::Key => hexadecimal(&mut out[..12], order.number),
            Part::Sku(group) => decimal(&mut out[..7], self.plan.sku(order, group)),
            Part::Account(group) => decimal(&mut out[..7], self.plan.account(order, group)),
            Part::Order(group) => {
                hexadecimal(&mut out[..12], order.number);
                hexadecimal(&mut out[13..15], group.into());
            }
        }
    }
}

impl Template {
    fn new(plan: &Plan, excess: Option<Excess>) -> Self {
        let mut names = Names { slots: Vec::new() };
        let key = if plan.keys {
            plan.request_key(0).replace(&format!("{:012x}", 0), &names.placeholder(Part::Key))
        } else {
            String::new()
        };
        let branches =
            plan.branches().map(|(kind, group)| branch(plan, kind, group, excess, &mut names));
        let branches = branches.collect();
        let request = ExecuteRequest {
            request_key: key,
            branches,
            locks: locks(plan, &mut names),
            answer_at: plan.answer_at.into(),
            ..ExecuteRequest::default()
        };
        let bytes = request.encode_to_vec();
        let slots = names.slots.into_iter().map(|(placeholder, part)| {
            let found =
                bytes.windows(placeholder.len()).position(|it| it == placeholder.as_bytes());
            Slot { offset: found.expect("it is in one of the names"), part }
        });
        Self { slots: slots.collect(), bytes }
    }
}

/// Placeholders that were given out.
struct Names {
    slots: Vec<(String, Part)>,
}

impl Names {
    /// A new one, as long as what it stands for.
    fn placeholder(&mut self, part: Part) -> String {
        let number = self.slots.len();
        let text = match part {
            Part::Key => format!("?{number:011}"),
            Part::Sku(_) | Part::Account(_) => format!("?{number:06}"),
            Part::Order(_) => format!("?{number:011}-??"),
        };
        self.slots.push((text.clone(), part));
        text
    }

    fn sku(&mut self, group: u32) -> String {
        sku_name(0).replace("0000000", &self.placeholder(Part::Sku(group)))
    }

    fn account(&mut self, group: u32) -> String {
        account_name(0).replace("0000000", &self.placeholder(Part::Account(group)))
    }
}

/// Of all that the branches change.
fn locks(plan: &Plan, names: &mut Names) -> Vec<Lock> {
    let mut keys: Vec<String> = Vec::new();
    for (kind, group) in plan.branches().filter(|_| plan.locks) {
        match kind {
            Kind::Inventory => keys.push(names.sku(group)),
            Kind::Payment => keys.push(names.account(group)),
            Kind::Order => {}
        }
    }
    keys.into_iter().map(|key| Lock { key, mode: LockMode::Exclusive.into() }).collect()
}

fn branch(
    plan: &Plan,
    kind: Kind,
    group: u32,
    excess: Option<Excess>,
    names: &mut Names,
) -> Branch {
    let asks_too_much = |of| group == 0 && excess == Some(of);
    let message = match kind {
        Kind::Inventory => {
            let quantity = if asks_too_much(Excess::Stock) { TOO_MUCH_STOCK } else { QUANTITY };
            let line = StockLine { sku: names.sku(group), quantity, ..StockLine::default() };
            ReserveStock { lines: vec![line] }.encode_to_vec()
        }
        Kind::Payment => {
            let amount_minor = if asks_too_much(Excess::Money) { TOO_MUCH_MONEY } else { AMOUNT };
            let (account, currency) = (names.account(group), CURRENCY.into());
            TakePayment { account, amount_minor, currency, ..TakePayment::default() }
                .encode_to_vec()
        }
        Kind::Order => PlaceOrder {
            order_id: plan.order_prefix() + &names.placeholder(Part::Order(group)),
            customer: names.account(group),
            lines: vec![OrderLine { sku: names.sku(group), quantity: QUANTITY }],
            total_minor: AMOUNT,
            currency: CURRENCY.into(),
            expected_version: None,
        }
        .encode_to_vec(),
    };
    let payload = Payload { kind: Some(payload::Kind::Typed(message.into())) };
    Branch { participant: kind.name().into(), payload: Some(payload) }
}

/// Writes a number over all of `out`.
fn decimal(out: &mut [u8], mut number: u32) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Writes a number over all of `out`.
fn hexadecimal(out: &mut [u8], mut number: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use dtc_proto::{decode_payload, dtc::ExecuteStreamRequest};

    use super::*;
    use crate::bench::{args::Args, plan::RunId};

    fn templates(flags: &[&str]) -> Templates {
        let load = Args::parse_from(["bench"].iter().chain(flags)).load;
        Templates::new(Plan::new(&load, load.kinds(), RunId::random()))
    }

    fn decoded<M: Message + prost::Name + Default>(branch: &Branch) -> M {
        decode_payload(&shop_proto::DESCRIPTORS, branch.payload.as_ref()).unwrap()
    }

    #[test]
    fn a_filled_template_is_the_order_that_was_planned() {
        let templates = templates(&["--branches", "6", "--items", "9", "--answer-at", "decision"]);
        let plan = templates.plan();
        let mut bytes = BytesMut::new();
        let orders: Vec<Order> = [0, 1, 0xfff_ffff_ffff].map(|number| plan.order(number)).into();
        for (tag, order) in orders.iter().enumerate() {
            templates.item(tag as u64 * 1000, order, &mut bytes);
        }
        let message = ExecuteStreamRequest::decode(bytes).unwrap();
        assert_eq!(message.items.len(), orders.len());
        for (index, (item, order)) in message.items.into_iter().zip(&orders).enumerate() {
            assert_eq!(item.tag, index as u64 * 1000);
            let request = item.request.unwrap();
            assert_eq!(request.request_key, plan.request_key(order.number));
            assert_eq!(request.answer_at(), dtc_proto::dtc::AnswerAt::Decision);
            for group in [0, 1] {
                let [stock, payment, placed] = &request.branches[group * 3..][..3] else {
                    panic!()
                };
                let names = [stock, payment, placed].map(|branch| branch.participant.as_str());
                assert_eq!(names, ["inventory", "payment", "order"]);
                let group = group as u32;
                let sku = sku_name(plan.sku(order, group));
                let account = account_name(plan.account(order, group));
                let stock: ReserveStock = decoded(stock);
                assert_eq!((&stock.lines[0].sku, stock.lines[0].quantity), (&sku, QUANTITY));
                let payment: TakePayment = decoded(payment);
                assert_eq!((&payment.account, payment.amount_minor), (&account, AMOUNT));
                let placed: PlaceOrder = decoded(placed);
                let id = plan.order_id(order.number, group);
                assert_eq!((placed.order_id, placed.customer), (id, account));
                assert_eq!(placed.lines, [OrderLine { sku, quantity: QUANTITY }]);
                assert_eq!((placed.total_minor, payment.currency), (AMOUNT, placed.currency));
            }
        }
    }

    #[test]
    fn an_order_that_asks_too_much_does_so_in_one_branch() {
        let templates = templates(&["--branches", "6", "--no-keys", "--aborts", "1"]);
        for number in [0, 1] {
            let mut bytes = BytesMut::new();
            let order = templates.plan().order(number);
            templates.request(&order, &mut bytes);
            let request = ExecuteRequest::decode(bytes).unwrap();
            assert_eq!(request.request_key, "");
            let stock =
                |at: usize| decoded::<ReserveStock>(&request.branches[at]).lines[0].quantity;
            let money = |at: usize| decoded::<TakePayment>(&request.branches[at]).amount_minor;
            let asked = (stock(0), money(1), stock(3), money(4));
            match number {
                0 => assert_eq!(asked, (TOO_MUCH_STOCK, AMOUNT, QUANTITY, AMOUNT)),
                _ => assert_eq!(asked, (QUANTITY, TOO_MUCH_MONEY, QUANTITY, AMOUNT)),
            }
        }
    }
}
