//! Looks for servers that run on this machine without an engine. Requests carry no credentials.

use std::net::Ipv4Addr;
use std::rc::Rc;

use futures_util::future::join_all;

use super::observe::health;
use crate::error::Result;
use crate::http::Http;
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
pub(crate) async fn native_servers(stack: &Stack, listener: &Rc<dyn Listener>) -> Result<Vec<NativeServer>> {
    join_all(Role::ALL.map(|role| native(stack, role, listener))).await.into_iter().collect()
}

async fn native(stack: &Stack, role: Role, listener: &Rc<dyn Listener>) -> Result<NativeServer> {
    let port = match stack.service(role) {
        Service::External { url } => return Ok(NativeServer { role, url: url.clone(), answer: NativeAnswer::Named }),
        Service::Container(spec) => spec.config.publish.port(),
    };
    let url = ServerUrl::http(Ipv4Addr::LOCALHOST.to_string(), port);
    let http = Http::new(role.name(), &url.to_string(), true, None, Rc::clone(listener))?;
    let (response, version) = health(role, http).await;
    let answer = match response {
        ServerResponse::Answering(()) | ServerResponse::Refusing(_) | ServerResponse::Failing(_) => {
            NativeAnswer::Usable(version.unwrap_or_default())
        }
        ServerResponse::Unusable(what) => NativeAnswer::Unusable(what),
        ServerResponse::Starting(why) => NativeAnswer::Unusable(format!("a server that is {why}")),
        ServerResponse::Silent(_) | ServerResponse::Unasked | ServerResponse::NotTheContainer => NativeAnswer::Silent,
    };
    Ok(NativeServer { role, url, answer })
}
