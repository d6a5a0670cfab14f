//! Looks for servers that run on this machine without an engine. Requests carry no credentials.

use std::net::Ipv4Addr;
use std::rc::Rc;

use futures_util::future::join;

use crate::error::Result;
use crate::grafana::{self, Grafana};
use crate::http::{Http, PROBE};
use crate::influxdb::Influxdb;
use crate::model::address::ServerUrl;
use crate::model::event::Listener;
use crate::model::native::{NativeAnswer, NativeServer};
use crate::model::observed::ServerResponse;
use crate::model::role::Role;
use crate::model::stack::{Service, Stack};

/// Sends a request to loopback for each role that the stack does not assign to an external server.
///
/// # Errors
/// If no client can be created.
pub(crate) async fn native_servers(stack: &Stack, listener: &Rc<dyn Listener>) -> Result<[NativeServer; 2]> {
    let (influxdb, grafana) =
        join(native(stack, Role::Influxdb, listener), native(stack, Role::Grafana, listener)).await;
    Ok([influxdb?, grafana?])
}

async fn native(stack: &Stack, role: Role, listener: &Rc<dyn Listener>) -> Result<NativeServer> {
    let port = match stack.service(role) {
        Service::External { url } => return Ok(NativeServer { role, url: url.clone(), answer: NativeAnswer::Named }),
        Service::Container(spec) => spec.config.publish.port(),
    };
    let url = ServerUrl::http(Ipv4Addr::LOCALHOST.to_string(), port);
    let http = Http::new(role.name(), &url.to_string(), true, None, Rc::clone(listener))?;
    let (response, version) = match role {
        Role::Influxdb => Influxdb::new(http).version(PROBE).await,
        Role::Grafana => Grafana::new(http, grafana::Choice::OfAccount).health(PROBE).await,
    };
    let answer = match response {
        ServerResponse::Answering(()) | ServerResponse::Refusing(_) => {
            NativeAnswer::Usable(version.unwrap_or_default())
        }
        ServerResponse::Unusable(what) => NativeAnswer::Unusable(what),
        ServerResponse::Starting(why) => NativeAnswer::Unusable(format!("a server that is {why}")),
        ServerResponse::Silent(_) | ServerResponse::Unasked | ServerResponse::NotTheContainer => NativeAnswer::Silent,
    };
    Ok(NativeServer { role, url, answer })
}
