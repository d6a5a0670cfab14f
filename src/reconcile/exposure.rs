//! Finds external servers on this machine's loopback that other hosts can reach as well: the defaults of
//! Homebrew and of most packages. Requests to the other address carry no credentials.

use std::net::IpAddr;
use std::rc::Rc;

use futures_util::future::join;

use crate::grafana::{self, Grafana};
use crate::http::{Http, PROBE};
use crate::influxdb::Influxdb;
use crate::model::address::ServerUrl;
use crate::model::event::Listener;
use crate::model::login::SignedInAccount;
use crate::model::native::{System, exposure};
use crate::model::observed::{Observed, ServerResponse};
use crate::model::role::Role;
use crate::model::stack::{Service, Stack};

/// A warning for each external server on loopback that also answers at this machine's address `own` and
/// lets every client in.
pub(super) async fn exposures(stack: &Stack, seen: &Observed, own: IpAddr, listener: &Rc<dyn Listener>) -> Vec<String> {
    let is_open = seen.grafana.login.account == SignedInAccount::DefaultPassword;
    let answers = seen.influxdb_state().is_some();
    let influxdb = async {
        let url = url_at(stack, Role::Influxdb, own).filter(|_| answers)?;
        let server = Influxdb::new(client(Role::Influxdb, &url, listener)?);
        server.query_within(None, "SHOW DATABASES", Some(PROBE)).await.ok()?;
        Some(exposure(Role::Influxdb, &url, System::HERE))
    };
    let grafana = async {
        let url = url_at(stack, Role::Grafana, own).filter(|_| is_open)?;
        let server = Grafana::new(client(Role::Grafana, &url, listener)?, grafana::Choice::OfAccount, None);
        let (health, _) = server.health(PROBE).await;
        (health == ServerResponse::Answering(())).then(|| exposure(Role::Grafana, &url, System::HERE))
    };
    let (influxdb, grafana) = join(influxdb, grafana).await;
    influxdb.into_iter().chain(grafana).collect()
}

/// The same server at another address of this machine, if it is external, on loopback and without TLS.
fn url_at(stack: &Stack, role: Role, own: IpAddr) -> Option<ServerUrl> {
    match stack.service(role) {
        Service::External { url } if url.is_loopback() && !url.tls => {
            Some(ServerUrl { host: own.to_string(), ..url.clone() })
        }
        _ => None,
    }
}

fn client(role: Role, url: &ServerUrl, listener: &Rc<dyn Listener>) -> Option<Http> {
    Http::new(role.name(), &url.to_string(), true, None, Rc::clone(listener)).ok()
}
