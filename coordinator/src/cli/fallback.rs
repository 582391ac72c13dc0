//! When no coordinator answers: the store knows almost everything, all but the agents' reports.

use handover_proto::wire::{
    DoctorReply, DoctorRequest, HistoryReply, HistoryRequest, StatusReply, StatusRequest, TurnsReply, TurnsRequest,
};
use handover_store::client::Store;

use super::args::Global;
use super::outcome::CliError;
use crate::clock::wall_ms;
use crate::serve::refuse_view;
use crate::view::{self, Viewer};
use crate::world::World;

/// The status as the store alone shows it.
///
/// # Errors
/// [`CliError::Nobody`] if the store cannot be read either, [`CliError::Refused`].
pub(super) async fn status(
    global: &Global,
    addresses: String,
    request: &StatusRequest,
) -> Result<StatusReply, CliError> {
    let world = read(global, addresses).await?;
    let viewer = Viewer { at_ms: wall_ms(), ..Viewer::default() };
    view::status(&world, request, &viewer).map_err(|error| CliError::of(&refuse_view(&error)))
}

/// The history as the store alone shows it.
///
/// # Errors
/// As [`status`].
pub(super) async fn history(
    global: &Global,
    addresses: String,
    request: &HistoryRequest,
) -> Result<HistoryReply, CliError> {
    let world = read(global, addresses).await?;
    view::history(&world, request).map_err(|error| CliError::of(&refuse_view(&error)))
}

/// The lease's history as the store has it.
///
/// # Errors
/// As [`status`].
pub(super) async fn turns(global: &Global, addresses: String, request: &TurnsRequest) -> Result<TurnsReply, CliError> {
    let world = read(global, addresses).await?;
    view::turns(&world, request, wall_ms()).map_err(|error| CliError::of(&refuse_view(&error)))
}

/// The doctor's findings as the store alone shows them.
///
/// # Errors
/// As [`status`].
pub(super) async fn doctor(
    global: &Global,
    addresses: String,
    request: &DoctorRequest,
) -> Result<DoctorReply, CliError> {
    let world = read(global, addresses).await?;
    let viewer = Viewer { at_ms: wall_ms(), ..Viewer::default() };
    view::doctor(&world, request, &viewer).map_err(|error| CliError::of(&refuse_view(&error)))
}

async fn read(global: &Global, addresses: String) -> Result<World, CliError> {
    let world = World::new(&global.env);
    let store = Store::open(&global.store_access()?)?;
    let listing = async { Ok((store.list(&world.keys.prefix()).await?, crate::serve::members(&store).await)) };
    let (listing, members) =
        listing.await.map_err(|source| CliError::Nobody { addresses: addresses.clone(), source })?;
    eprintln!(
        "handover: no coordinator answers at {addresses}; this is what the store says, without the agents' reports"
    );
    let mut world = World::of_listing(&global.env, listing);
    world.members = members;
    Ok(world)
}
