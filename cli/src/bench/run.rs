//! One run of `dtc bench`, from starting the services to the report.

use super::{
    addresses::Addresses,
    args::Args,
    fault,
    local::Local,
    plan::{Plan, RunId},
    report::{LoadReport, Report},
    session::Session,
};

/// Runs everything that the flags say; starts services into `local` if they say
/// so.
///
/// # Errors
///
/// When something cannot be done. What the check found is in the report.
pub(crate) async fn run(args: &Args, local: &mut Option<Local>) -> anyhow::Result<Report> {
    if args.services.local {
        *local = Some(Local::start(args.services.data.as_deref()).await?);
    }
    let addresses = match local {
        Some(local) => local.addresses(),
        None => Addresses::given(&args.services),
    };
    let run_id = RunId::random();
    let kinds = match args.fault {
        Some(_) => fault::UNHARMED.into(),
        None => args.load.kinds(),
    };
    let plan = Plan::new(&args.load, kinds, run_id);
    let mut session = Session::open(args, &addresses, plan).await?;
    let fresh = session.shop.is_fresh().await?;
    let mut points = Vec::new();
    for in_flight in &args.load.in_flight {
        for run in 1..=args.runs {
            let point = match (args.fault, &mut *local) {
                (Some(fault), Some(local)) => {
                    session.measure_fault(local, fault, *in_flight, run).await?
                }
                _ => session.measure(*in_flight, run).await?,
            };
            points.push(point);
        }
    }
    Ok(Report {
        run: run_id.to_string(),
        load: LoadReport::new(args, session.clients.templates.plan().kinds.clone()),
        start_ups: local.as_ref().map_or_else(Vec::new, Local::start_ups),
        points,
        check: session.check(fresh).await?,
    })
}
