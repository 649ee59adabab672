//! Shipping: a parcel is booked on the van of a day.
//!
//! A van has room for `capacity` parcels, of which `booked` and `reserved` are taken.
//! A prepared branch has its place in `reserved`: so commit can't find the van full.

use dtc_participant::{BranchId, Error, Refusal, ResourceManager, Vote, fields};
use dtc_participant::{Descriptors, Handle, Program};
use rusqlite::{Row, Transaction, params};
use tonic::{Request, Response, Status, service::Routes};
use wire::shipping_service_server::{SERVICE_NAME, ShippingService, ShippingServiceServer};
use wire::{BookParcel, GetVanRequest, Parcel, SetVanRequest, Van};

#[allow(missing_docs, clippy::too_many_lines, reason = "made of shipping.proto, which says it")]
pub mod wire {
    tonic::include_proto!("shipping.v1");
}

/// What `build.rs` made of `shipping.proto`: with it, payloads can be typed as JSON.
static DESCRIPTORS: Descriptors =
    Descriptors::new(include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin")));

/// The domain. All else that the protocol asks of a participant, the kit does.
struct Shipping;

impl ResourceManager for Shipping {
    const NAME: &'static str = "shipping";
    const SCHEMA: &'static str = "
        CREATE TABLE IF NOT EXISTS vans (
            day TEXT PRIMARY KEY NOT NULL, capacity INTEGER NOT NULL, booked INTEGER NOT NULL,
            reserved INTEGER NOT NULL CHECK (reserved BETWEEN 0 AND capacity - booked)
        );
        CREATE TABLE IF NOT EXISTS parcels (
            number INTEGER PRIMARY KEY AUTOINCREMENT, day TEXT NOT NULL, recipient TEXT NOT NULL
        );
    ";
    type Payload = BookParcel;
    type Output = Parcel;

    fn descriptors() -> &'static Descriptors {
        &DESCRIPTORS
    }

    /// Everything that can fail is here. What is written is durable before the vote leaves.
    fn prepare(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        BookParcel { day, recipient }: &BookParcel,
    ) -> Result<Vote<Parcel>, Error> {
        fields::name("day", day)?;
        fields::name("recipient", recipient)?;
        let reserve = "UPDATE vans SET reserved = reserved + 1
                       WHERE day = ?1 AND booked + reserved < capacity";
        if transaction.execute(reserve, [day])? == 0 {
            let message = format!("day: no van on '{day}' has room for a parcel");
            return Ok(Vote::Abort(Refusal::new("VAN_FULL", message)));
        }
        transaction.execute("INSERT INTO parcels VALUES (NULL, ?1, ?2)", [day, recipient])?;
        Ok(Vote::Commit(Parcel { number: transaction.last_insert_rowid() }))
    }

    fn commit(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &BookParcel,
        _: &Parcel,
    ) -> Result<(), Error> {
        let book = "UPDATE vans SET reserved = reserved - 1, booked = booked + 1 WHERE day = ?1";
        transaction.execute(book, [&payload.day])?;
        Ok(())
    }

    fn rollback(
        &self,
        transaction: &Transaction<'_>,
        _: &BranchId,
        payload: &BookParcel,
        parcel: &Parcel,
    ) -> Result<(), Error> {
        let free = "UPDATE vans SET reserved = reserved - 1 WHERE day = ?1";
        transaction.execute(free, [&payload.day])?;
        transaction.execute("DELETE FROM parcels WHERE number = ?1", [parcel.number])?;
        Ok(())
    }
}

const VAN: &str = "SELECT day, capacity, booked, reserved FROM vans WHERE day = ?1";

fn van(row: &Row<'_>) -> rusqlite::Result<Van> {
    let (capacity, booked, reserved) = (row.get(1)?, row.get(2)?, row.get(3)?);
    Ok(Van { day: row.get(0)?, capacity, booked, reserved })
}

/// The service's own calls, on the same storage.
#[tonic::async_trait]
impl ShippingService for Handle {
    async fn set_van(&self, request: Request<SetVanRequest>) -> Result<Response<Van>, Status> {
        let SetVanRequest { day, capacity } = request.into_inner();
        fields::name("day", &day)?;
        fields::number("INVALID_CAPACITY", "capacity", capacity, 0..=1_000_000)?;
        let set = "INSERT INTO vans VALUES (?1, ?2, 0, 0) ON CONFLICT (day)
                   DO UPDATE SET capacity = ?2 WHERE booked + reserved <= ?2";
        let write = move |transaction: &Transaction<'_>| {
            if transaction.execute(set, params![day, capacity])? == 0 {
                let message = format!("capacity is {capacity}, but more parcels have a place");
                return Err(Refusal::new("INVALID_CAPACITY", message).into());
            }
            Ok(transaction.query_row(VAN, [day], van)?)
        };
        self.write(write).await.map(Response::new)
    }

    async fn get_van(&self, request: Request<GetVanRequest>) -> Result<Response<Van>, Status> {
        self.get("the van of", request.into_inner().day, VAN, van).await.map(Response::new)
    }
}

/// Runs the service as the process's flags say, until it is told to stop.
pub fn run_from_args() -> std::process::ExitCode {
    let program = Program {
        name: "example-shipping",
        about: "Parcels on a day's van: an example of a participant with the kit",
        listen: "127.0.0.1:7104",
        service: SERVICE_NAME,
        resource: Shipping,
        own: |handle| Routes::new(ShippingServiceServer::new(handle)),
    };
    program.run_from_args()
}
