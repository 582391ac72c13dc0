//! Bytes into a real gate, over real sockets, before a service that takes HTTP/1.1 by the letter. An input is what a client
//! sends before it ends its side; one that begins with `H2` and a byte is a request by HTTP/2 ([`second`]).
//!
//! What must hold: every byte that the gate sends to the service is a message that can be read in one way only
//! ([`strict`]); the requests that the service gets are, in order, among those that an independent reader finds in the
//! client's bytes ([`reading`]), with their method, target, body and fields; those before the first doubtful byte all
//! arrive; and the client gets the answer of each. So nothing is smuggled, in either direction.

pub mod reading;
pub mod second;
pub mod strict;
pub mod world;

use std::cell::RefCell;

use super::{Outcome, must};
use reading::Request;
use strict::Message;
use world::{Seen, World};

/// Fields that the gate writes, takes out or joins.
const MANAGED: [&str; 15] = [
    "connection",
    "content-length",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// The property, of one gate that lives as long as the thread.
///
/// # Errors
/// What is broken.
pub fn check_real(data: &[u8]) -> Outcome {
    WORLD.with_borrow_mut(|world| {
        let world = match world {
            Some(world) => world,
            None => world.insert(World::with_gate().map_err(|error| format!("no gate: {error:#}"))?),
        };
        check(data, world)
    })
}

/// The property.
///
/// # Errors
/// What is broken.
pub fn check(data: &[u8], world: &mut World) -> Outcome {
    match data.strip_prefix(b"H2") {
        Some([_, request @ ..]) => second::check(request, world),
        _ => check_bytes(data, world),
    }
}

fn check_bytes(data: &[u8], world: &mut World) -> Outcome {
    let seen = world.send(data).map_err(|error| format!("{error:#}"))?;
    is_by_the_letter(&seen)?;
    if data.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
        return Ok(());
    }
    let meant = reading::requests(data);
    let mut found = meant.iter();
    for message in &seen.messages {
        let same = found.any(|request| is_same(request, message));
        must!(same, "the service got what nobody sent: {message:?}; the client sent {meant:?}");
    }
    let sure = meant.iter().take_while(|request| request.is_sure).count();
    must!(seen.messages.len() >= sure, "of {sure} requests without a doubt {} arrived", seen.messages.len());
    let closing = meant.iter().take(sure).position(|request| request.closes);
    must!(closing.is_none_or(|at| seen.messages.len() <= at + 1), "after a last request there came another");
    are_answered(&seen)
}

fn is_by_the_letter(seen: &Seen) -> Outcome {
    match seen.faults.first() {
        Some(fault) => Err(format!("the gate sent what can be read in two ways: {fault}")),
        None => Ok(()),
    }
}

fn is_same(request: &Request, message: &Message) -> bool {
    let rest = |headers: &[(String, Vec<u8>)]| {
        let mut rest: Vec<_> = headers.iter().filter(|(name, _)| is_passed(name, request)).cloned().collect();
        rest.sort();
        rest
    };
    request.method == message.method
        && request.target == message.target
        && request.body == message.body
        && rest(&request.headers) == rest(&message.headers)
}

fn is_passed(name: &str, request: &Request) -> bool {
    !MANAGED.contains(&name) && !request.named.iter().any(|named| named == name)
}

/// The service numbers its answers; the client must find each number once and in order.
fn are_answered(seen: &Seen) -> Outcome {
    let Some(answers) = &seen.answers else { return Ok(()) };
    let text = String::from_utf8_lossy(answers);
    let numbers: Vec<u64> =
        text.split("x-answer: ").skip(1).filter_map(|rest| rest.split("\r\n").next()?.parse().ok()).collect();
    let meant: Vec<u64> = seen.messages.iter().map(|message| message.number).collect();
    must!(numbers == meant, "the service answered {meant:?}, the client got {numbers:?} in {text:?}");
    let heads = text.matches("HTTP/1.").count() - text.matches("HTTP/1.1 100 ").count();
    must!(
        heads <= meant.len() + 1,
        "{heads} answers to {} requests, and no more than one can be the gate's",
        meant.len()
    );
    Ok(())
}
