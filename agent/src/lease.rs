//! stub
#![allow(missing_docs)]
use std::{collections::BTreeMap,net::SocketAddr,time::Duration,path::PathBuf,sync::Arc};
use handover_proto::{blocker::Blocker,ids::*,lease::Owner,numbers::Token};
use tokio::sync::watch;
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted { pub instances: BTreeMap<InstanceId, LocalInstance> }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalInstance { pub owner: Owner, pub slot: SlotId, pub app: SocketAddr, pub eligible: bool, pub ready: bool, pub serving: bool, pub life: Life }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life { Running, GiveUp, Dead{proven:bool} }
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeeperStatus { pub instances: BTreeMap<InstanceId, InstanceLease>, pub waiting: Option<Blocker> }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceLease { pub state: LeaseState, pub token: Option<Token>, pub remaining_soft: Option<Duration>, pub reason: String, pub may_stop: bool }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState { None, Candidate, Starting, Holder, Quiescing, Stopped, Fenced }
#[derive(Debug, Clone, serde::Deserialize)]
pub struct LeaseSettings { #[serde(default)] pub c_unit: String }
impl LeaseSettings { pub fn check(&self)->Result<(),std::io::Error>{Ok(())} }
pub struct Place { pub endpoints: Vec<String>, pub env: Env, pub service: Service, pub agent: AgentId, pub state_dir: PathBuf, pub runtime_dir: PathBuf }
pub struct KeeperHandle { pub status: watch::Receiver<KeeperStatus> }
pub fn spawn(_s: LeaseSettings,_p: Place,_w: watch::Receiver<Wanted>,_k: Arc<dyn Fn(&InstanceId)+Send+Sync>)->Result<KeeperHandle,std::io::Error>{ Err(std::io::Error::other("x")) }
