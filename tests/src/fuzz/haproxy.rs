//! What HAProxy's Runtime API answers. An input is a line `PERCENT OURS` (what the server is to get, 0 for a drain; a `d` and
//! a `w` for what of the server line is ours) and the answer to `show servers state`.
//!
//! What must hold: no answer panics; the table that was read, printed with its columns in another order, is read as the
//! same; no weight is read that HAProxy cannot have; and a HAProxy that obeys is brought to an end in six steps, at which
//! it does as it is to do, or it is said why not, with an operator's drain and maintenance untouched all the way.

use std::collections::BTreeMap;

use handover_agent::balancer::haproxy::state::{Server, StateError, servers};
use handover_agent::balancer::haproxy::step::{Order, Step, step};
use handover_agent::balancer::record::Ours;
use handover_agent::core::front::Wish;

use super::{Outcome, must};

/// As many as the agent takes in a row.
const STEPS: usize = 6;
/// HAProxy refuses a larger one ("Absolute weight can only be between 0 and 256 inclusive").
const HEAVIEST: u32 = 256;
/// Somebody's drain, in `srv_admin_state`.
const DRAIN: u32 = 0x08;
/// Maintenance that an operator began.
const MAINTENANCE: u32 = 0x01;

/// The code that is judged.
#[derive(Clone, Copy)]
pub struct Subject {
    /// Reads the table.
    pub servers: fn(&str) -> Result<BTreeMap<String, Server>, StateError>,
    /// Decides about one server.
    pub step: fn(Wish, &Server, Ours) -> Step,
}

/// As it is shipped.
pub const REAL: Subject = Subject { servers, step };

/// The property.
///
/// # Errors
/// What is broken.
pub fn check(data: &[u8], subject: &Subject) -> Outcome {
    let text = String::from_utf8_lossy(data);
    let (order, answer) = text.split_once('\n').unwrap_or_default();
    let (percent, ours) = order.split_once(' ').unwrap_or((order, ""));
    let wish = match percent.parse() {
        Ok(0) | Err(_) => Wish::Drain,
        Ok(percent) => Wish::Serve { percent },
    };
    let ours = Ours { drain: ours.contains('d'), weight: ours.contains('w') };
    let read = match (subject.servers)(answer) {
        Ok(read) => read,
        Err(error) => {
            let said = error.to_string();
            must!(said.chars().count() <= 1000 && !said.contains('\n'), "an error of {} bytes: {said:?}", said.len());
            return Ok(());
        }
    };
    let printed = table(&read);
    must!((subject.servers)(&printed).as_ref() == Ok(&read), "{read:?}, printed and read again, is another");
    for (name, server) in &read {
        must!(
            server.weight <= HEAVIEST && server.initial_weight <= HEAVIEST,
            "{name} has a weight of nobody: {server:?}"
        );
        settles(wish, *server, ours, subject).map_err(|why| format!("{name}, to be {wish:?} with {ours:?}: {why}"))?;
    }
    Ok(())
}

/// As another version of HAProxy would write it.
fn table(servers: &BTreeMap<String, Server>) -> String {
    let head = "1\n# srv_iweight be_id srv_uweight srv_name srv_admin_state x srv_op_state\n".to_owned();
    let rows = servers.iter().map(|(name, server)| {
        let Server { op, admin, weight, initial_weight } = server;
        format!("{initial_weight} 3 {weight} {name} {admin} - {op}\n")
    });
    rows.fold(head, |table, row| table + &row)
}

/// HAProxy obeys; where does it end?
fn settles(wish: Wish, begin: Server, begin_ours: Ours, subject: &Subject) -> Outcome {
    let (mut server, mut ours) = (begin, begin_ours);
    for _ in 0..STEPS {
        match (subject.step)(wish, &server, ours) {
            Step::Confirmed => return is_as_wished(wish, &begin, begin_ours, &server, ours),
            Step::Wait(why) => {
                must!(!why.is_empty() && wish != Wish::Drain, "a drain waits: {why:?}");
                must!(!server.is_up() || server.is_out(), "it waits for nothing: {why:?}");
                return Ok(());
            }
            Step::Note(noted) => {
                must!(noted != ours, "the same is noted twice: {noted:?}");
                ours = noted;
            }
            Step::Say(noted, order) => {
                ours = noted;
                let was = server;
                obey(&mut server, order)?;
                must!(server != was, "{order:?} changes nothing at {was:?}");
                let operators = |server: &Server| (server.admin & MAINTENANCE, server.admin & DRAIN);
                let kept = operators(&server).0 == operators(&was).0
                    && (begin_ours.drain
                        || operators(&was).1 == 0
                        || begin.admin & DRAIN == 0
                        || operators(&server).1 != 0);
                must!(kept, "{order:?} undoes what an operator did to {was:?}");
            }
        }
    }
    Err(format!("no end in {STEPS} steps: {begin:?} became {server:?}"))
}

fn is_as_wished(wish: Wish, begin: &Server, begin_ours: Ours, end: &Server, ours: Ours) -> Outcome {
    match wish {
        Wish::Drain => {
            must!(end.is_out(), "confirmed as drained: {end:?}");
            must!(begin.is_out() || ours.drain, "a drain of ours that is not remembered would stay for ever");
        }
        Wish::Serve { percent } => {
            must!(end.is_up() && !end.is_out(), "confirmed as serving: {end:?}");
            must!(!ours.drain, "it serves, and a drain is remembered as ours");
            must!(
                end.weight > 0 || end.initial_weight == 0 || (begin.weight == 0 && !begin_ours.weight),
                "it has no weight: {end:?}"
            );
            let ceiling = (end.initial_weight * u32::from(percent.min(100))).div_ceil(100).max(1);
            must!(
                percent >= 100 || end.weight <= ceiling,
                "{percent} % of {} is not {}",
                end.initial_weight,
                end.weight
            );
        }
    }
    Ok(())
}

fn obey(server: &mut Server, order: Order) -> Outcome {
    match order {
        Order::Drain => server.admin = (server.admin & !MAINTENANCE) | DRAIN,
        Order::Ready => server.admin &= !(MAINTENANCE | DRAIN),
        Order::Weight(weight) => {
            must!(weight <= HEAVIEST, "HAProxy refuses the weight {weight}");
            server.weight = weight;
        }
    }
    Ok(())
}
