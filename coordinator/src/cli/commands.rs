//! One function per command.

use std::io::Read;
use std::path::Path;

use handover_proto::ids::OpId;
use handover_proto::wire::{HistoryRequest, OrderRequest, SpecRequest, StatusReply, StatusRequest};

use super::args::{Global, OrderArgs, Which};
use super::connect::{Coordinators, Repeat};
use super::out::Out;
use super::outcome::{CliError, Outcome};
use super::watch::{self, Start};
use super::{fallback, render};

/// What every command works with.
#[derive(Debug)]
pub(super) struct Session {
    global: Global,
    coordinators: Coordinators,
    out: Out,
}

impl Session {
    /// For one command.
    pub(super) fn new(global: Global) -> Self {
        let coordinators = Coordinators::new(&global.coordinator, global.timeout).among(global.parties());
        let out = Out::new(global.json);
        Self { global, coordinators, out }
    }

    /// What holds for every command.
    pub(super) fn global(&self) -> &Global {
        &self.global
    }

    /// Whom to ask.
    pub(super) fn coordinators(&self) -> &Coordinators {
        &self.coordinators
    }

    /// Where the answer goes.
    pub(super) fn out(&self) -> &Out {
        &self.out
    }

    /// `handover plan`.
    ///
    /// # Errors
    /// [`CliError`]; a spec that a policy forbids is [`CliError::Refused`].
    pub(super) async fn plan(&self, spec: &Path) -> Result<Outcome, CliError> {
        let request = spec_request(spec)?;
        let reply = self.coordinators.read(|mut c| {
            let request = request.clone();
            async move { c.plan(request).await }
        });
        let reply = reply.await?;
        self.out.answer(&reply, &render::plan(&reply))?;
        Ok(if reply.changes { Outcome::Changes } else { Outcome::Done })
    }

    /// `handover rollout start`.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) async fn start(&mut self, spec: &Path, detach: bool) -> Result<Outcome, CliError> {
        let request = spec_request(spec)?;
        let reply = self.coordinators.lead(Repeat::Safe, |mut c| {
            let request = request.clone();
            async move { c.start(request).await }
        });
        let reply = reply.await?;
        if reply.rollout.is_empty() {
            self.out.answer(&reply, &["nothing to do: the fleet is as the spec wants it".to_owned()])?;
            return Ok(Outcome::Done);
        }
        if detach {
            self.out.answer(&reply, &[format!("rollout {} has started", reply.rollout)])?;
            return Ok(Outcome::Done);
        }
        self.follow(reply.rollout, Start::JustNow).await
    }

    /// `handover rollout watch`.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) async fn watch(&mut self, rollout: String) -> Result<Outcome, CliError> {
        self.follow(rollout, Start::Earlier).await
    }

    async fn follow(&mut self, rollout: String, start: Start) -> Result<Outcome, CliError> {
        let request = StatusRequest { service: self.global.service_name(), rollout, order: 0 };
        watch::until_ended(&self.coordinators, request, start, self.global.timeout, &mut self.out).await
    }

    /// `handover rollout status`.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) async fn status(&self, which: &Which) -> Result<Outcome, CliError> {
        let reply = self.picture(id(which.rollout.as_ref())).await?;
        self.out.answer(&reply, &render::status(&reply))?;
        Ok(Outcome::Done)
    }

    /// `handover rollout pause | resume | abort | rollback`.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) async fn order(&mut self, order: &str, args: &OrderArgs) -> Result<Outcome, CliError> {
        let request = OrderRequest {
            rollout: id(args.rollout.as_ref()),
            service: self.global.service_name(),
            order: order.to_owned(),
            by: operator(),
            reason: args.reason.clone(),
        };
        let reply = self.coordinators.lead(Repeat::Unsafe, |mut c| {
            let request = request.clone();
            async move { c.order(request).await }
        });
        let reply = reply.await?;
        if args.watch {
            return self.follow(reply.rollout, Start::JustNow).await;
        }
        self.out.answer(&reply, std::slice::from_ref(&reply.message))?;
        Ok(Outcome::Done)
    }

    /// `handover rollout history`.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) async fn history(&self, which: &Which) -> Result<Outcome, CliError> {
        let request =
            HistoryRequest { service: self.global.service_name(), rollout: id(which.rollout.as_ref()), orders: false };
        let reply = self.past(request).await?;
        let text = render::history(&reply);
        if reply.lines.is_empty() {
            self.out.answers(&reply.rollouts, &text)?;
        } else {
            self.out.answers(&reply.lines, &text)?;
        }
        Ok(Outcome::Done)
    }

    /// `handover audit`.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) async fn audit(&self, number: Option<u64>) -> Result<Outcome, CliError> {
        let request = HistoryRequest { service: self.global.service_name(), rollout: String::new(), orders: true };
        let mut orders = self.past(request).await?.orders;
        if let Some(number) = number {
            orders.retain(|order| order.number == number);
            let unknown = || format!("there is no order {number}; `handover audit` lists those that are kept");
            let order = orders.first().ok_or_else(|| CliError::Refused { kind: String::new(), sentence: unknown() })?;
            self.out.answer(order, &render::order_log(order))?;
            return Ok(Outcome::Done);
        }
        self.out.answers(&orders, &render::orders(&orders))?;
        Ok(Outcome::Done)
    }

    async fn past(&self, request: HistoryRequest) -> Result<handover_proto::wire::HistoryReply, CliError> {
        let reply = self.coordinators.read(|mut c| {
            let request = request.clone();
            async move { c.history(request).await }
        });
        match reply.await {
            Err(CliError::NoCoordinator { addresses, .. }) => {
                fallback::history(&self.global, addresses, &request).await
            }
            other => other,
        }
    }

    /// `handover fleet`.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) async fn fleet(&self) -> Result<Outcome, CliError> {
        let reply = self.picture(String::new()).await?;
        let mut text = render::fleet(&reply);
        text.extend(render::notes(&reply));
        self.out.answers(&reply.fleet, &text)?;
        Ok(Outcome::Done)
    }

    /// `handover lease show`.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) async fn lease(&self) -> Result<Outcome, CliError> {
        let reply = self.picture(String::new()).await?;
        if reply.lease.is_none() {
            self.out.answer(
                &serde_json::Value::Null,
                &["no agent has registered, so there is no lease to show".to_owned()],
            )?;
            return Ok(Outcome::Done);
        }
        let lease = reply.lease.unwrap_or_default();
        self.out.answer(&lease, &render::lease(&lease, reply.at_ms))?;
        Ok(Outcome::Done)
    }

    /// `handover why`.
    ///
    /// # Errors
    /// [`CliError`].
    pub(super) async fn why(&self) -> Result<Outcome, CliError> {
        let reply = self.picture(String::new()).await?;
        self.out.answers(&reply.blockers, &render::why(&reply))?;
        Ok(Outcome::Done)
    }

    /// The status from a coordinator, or, if none answers, from the store.
    pub(super) async fn picture(&self, rollout: String) -> Result<StatusReply, CliError> {
        let request = StatusRequest { service: self.global.service_name(), rollout, order: 0 };
        let reply = self.coordinators.read(|mut c| {
            let request = request.clone();
            async move { c.status(request).await }
        });
        match reply.await {
            Err(CliError::NoCoordinator { addresses, .. }) => fallback::status(&self.global, addresses, &request).await,
            other => other,
        }
    }
}

fn id(rollout: Option<&handover_proto::ids::RolloutId>) -> String {
    rollout.map(ToString::to_string).unwrap_or_default()
}

fn spec_request(path: &Path) -> Result<SpecRequest, CliError> {
    let file = path.display().to_string();
    let read = || match file.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        _ => std::fs::read_to_string(path),
    };
    let spec = read().map_err(|source| CliError::Spec { file: file.clone(), source })?;
    Ok(SpecRequest { spec, file, by: operator(), op: OpId::random().to_string() })
}

/// Who asks, for the journal: `user@host`.
pub(super) fn operator() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    let host = nix::unistd::gethostname().ok().map(|host| host.to_string_lossy().into_owned());
    format!("{}@{}", user.unwrap_or_else(|| "unknown".into()), host.unwrap_or_else(|| "unknown".into()))
}
