//! Logins, users and organisations.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::{ATTEMPTS, Double, Organisation, TOKEN, User, Who, text};
use crate::support::server::{Request, Response};

impl Double {
    /// The account of a request. As measured on 12.2.0, a request without a valid login counts as
    /// an anonymous visitor if those are allowed, even with a wrong password.
    pub(super) fn who(&mut self, request: &Request) -> Result<Who, Response> {
        self.signed_in(request).or_else(|rejected| {
            let role = self.doors.anonymous.clone().ok_or(rejected)?;
            Ok(Who { login: String::new(), is_admin: false, is_token: false, role })
        })
    }

    fn signed_in(&mut self, request: &Request) -> Result<Who, Response> {
        let Some(header) = request.headers.get("authorization") else {
            return Err(self.as_recorded("org without credentials"));
        };
        if let Some(token) = header.strip_prefix("Bearer ") {
            if token == TOKEN && self.state.tokens > 0 {
                let role = "Admin".into();
                return Ok(Who { login: "sa-1-clipper".into(), is_admin: false, is_token: true, role });
            }
            return Err(self.as_recorded("org with a malformed bearer token"));
        }
        if self.doors.without_basic {
            return Err(self.as_recorded("org without credentials"));
        }
        let encoded = header.strip_prefix("Basic ").unwrap_or_default();
        let decoded = BASE64_STANDARD.decode(encoded).unwrap_or_default();
        let decoded = String::from_utf8_lossy(&decoded);
        let (login, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
        let locked = self.locks_out && self.state.failures.get(login).is_some_and(|count| *count >= ATTEMPTS);
        match self.state.users.iter().find(|user| user.login == login) {
            Some(user) if user.password == password && !locked => {
                let role = user.role.clone();
                Ok(Who { login: login.into(), is_admin: user.is_admin, is_token: false, role })
            }
            Some(_) => {
                *self.state.failures.entry(login.into()).or_default() += 1;
                self.rejection = rejection(locked);
                let step = if password == "admin" { "org with the old password" } else { "org with a wrong password" };
                Err(self.as_recorded(step))
            }
            None => Err(self.as_recorded("org with an unknown user")),
        }
    }

    /// The reason for the last rejected login, as Grafana 12 logs it.
    pub(super) fn rejection(&self) -> &'static str {
        self.rejection
    }

    /// The login form, as measured on 12.2.0.
    pub(super) fn log_in(&mut self, body: &[u8]) -> Response {
        if self.doors.without_form {
            let message = json!({"statusCode": 400, "messageId": "auth.client.notConfigured", "message": "BadRequest"});
            return Response::json(400, &message);
        }
        let form: Value = serde_json::from_slice(body).unwrap_or_default();
        let (login, password) = (text(&form["user"]), text(&form["password"]));
        let failures = self.state.failures.entry(login.clone()).or_default();
        let is_locked = self.locks_out && *failures >= ATTEMPTS;
        if !is_locked && self.state.users.iter().any(|user| user.login == login && user.password == password) {
            return Response::json(200, &json!({"message": "Logged in", "redirectUrl": "/"}));
        }
        *failures += 1;
        self.rejection = rejection(is_locked);
        let message = "Invalid username or password";
        Response::json(401, &json!({"statusCode": 401, "messageId": "password-auth.failed", "message": message}))
    }

    /// The organisation in the header, otherwise the user's active one.
    pub(super) fn organisation(&self, request: &Request, who: &Who) -> Result<usize, Response> {
        let position = |id: u64| self.state.organisations.iter().position(|org| org.id == id);
        let user = self.state.users.iter().find(|user| user.login == who.login);
        let Some(named) = request.headers.get("x-grafana-org-id") else {
            let of_token = self.token_organisation.filter(|_| who.is_token);
            return Ok(of_token.or_else(|| user.map(|user| user.active)).and_then(position).unwrap_or(0));
        };
        let found = named.parse().ok().and_then(position);
        let belongs = |index: &usize| {
            who.is_admin || user.is_none_or(|user| user.organisations.contains(&self.state.organisations[*index].id))
        };
        found.filter(belongs).ok_or_else(|| self.as_recorded("organisation by an id that does not exist"))
    }

    pub(super) fn user(&self, who: &Who) -> Response {
        if who.is_token {
            return self.as_recorded("user with a service account token");
        }
        if who.is_admin { self.as_recorded("user") } else { self.as_recorded("user of a viewer") }
    }

    pub(super) fn change_password(&mut self, who: &Who, body: Option<&Value>) -> Response {
        let (old, new) = body.map(|body| (text(&body["oldPassword"]), text(&body["newPassword"]))).unwrap_or_default();
        let user = self.state.users.iter_mut().find(|user| user.login == who.login);
        match user {
            Some(user) if user.password == old && new.len() >= 4 => {
                user.password = new;
                self.as_recorded("change the password")
            }
            _ => Response::json(401, &json!({"message": "invalid old password"})),
        }
    }

    pub(super) fn create_user(&mut self, body: Option<&Value>) -> Response {
        let body = body.cloned().unwrap_or_default();
        self.state.users.push(User {
            login: text(&body["login"]),
            password: text(&body["password"]),
            is_admin: false,
            role: "Viewer".into(),
            organisations: vec![1],
            active: 1,
        });
        self.as_recorded("create user")
    }

    pub(super) fn organisation_by_name(&self, who: &Who, name: &str) -> Response {
        if !who.is_admin {
            let step = if who.role == "Editor" {
                "organisation by name as an editor"
            } else {
                "organisation by name as a viewer"
            };
            return self.as_recorded(step);
        }
        match self.state.organisations.iter().find(|org| org.name == name) {
            Some(org) => self.with("organisation by name", &[("id", json!(org.id)), ("name", json!(org.name))]),
            None => self.as_recorded("organisation by name, absent"),
        }
    }

    pub(super) fn create_organisation(&mut self, who: &Who, body: Option<&Value>) -> Response {
        if who.is_token {
            return self.as_recorded("create organisation with a service account token");
        }
        if !who.is_admin {
            return self.as_recorded("create organisation as a viewer");
        }
        let name = body.map(|body| text(&body["name"])).unwrap_or_default();
        if self.state.organisations.iter().any(|org| org.name == name) {
            return self.as_recorded("create organisation again");
        }
        let id = self.state.organisations.len() as u64 + 1;
        self.state.organisations.push(Organisation { id, name, ..Organisation::default() });
        if let Some(user) = self.state.users.iter_mut().find(|user| user.login == who.login) {
            user.organisations.push(id);
        }
        self.with("create organisation", &[("orgId", json!(id))])
    }

    pub(super) fn organisation_by_id(&self, id: &str) -> Response {
        match self.state.organisations.iter().find(|org| org.id.to_string() == id) {
            Some(org) => self.with("first organisation by id", &[("id", json!(org.id)), ("name", json!(org.name))]),
            None => self.as_recorded("organisation by name, absent"),
        }
    }

    /// The names of an account's organisations.
    pub(super) fn own_organisations(&self, who: &Who) -> Response {
        let user = self.state.users.iter().find(|user| user.login == who.login);
        let own = user.map(|user| user.organisations.clone()).unwrap_or_default();
        let mut list: Vec<&Organisation> =
            self.state.organisations.iter().filter(|org| own.contains(&org.id)).collect();
        list.sort_by_key(|org| org.name.clone());
        let list: Vec<Value> =
            list.into_iter().map(|org| json!({"orgId": org.id, "name": org.name, "role": who.role})).collect();
        Response::json(200, &json!(list))
    }

    pub(super) fn switch_organisation(&mut self, who: &Who, id: &str) -> Response {
        let id: u64 = id.parse().unwrap_or_default();
        let known = self.state.organisations.iter().any(|org| org.id == id);
        match self.state.users.iter_mut().find(|user| user.login == who.login) {
            Some(user) if known => user.active = id,
            _ => return Response::json(401, &json!({"message": "Not a valid organization"})),
        }
        self.as_recorded("switch back")
    }

    pub(super) fn look_up_user(&self, query: &str) -> Response {
        let login = query.strip_prefix("loginOrEmail=").unwrap_or_default();
        match self.state.users.iter().position(|user| user.login == login) {
            Some(index) => self.with("look the user up", &[("id", json!(index + 1)), ("login", json!(login))]),
            None => Response::json(404, &json!({"message": "user not found"})),
        }
    }

    pub(super) fn change_role(&mut self, id: &str, body: Option<&Value>) -> Response {
        let index = id.parse::<usize>().unwrap_or_default();
        let role = body.map(|body| text(&body["role"])).unwrap_or_default();
        if let Some(user) = self.state.users.get_mut(index.saturating_sub(1)) {
            user.role = role;
        }
        self.as_recorded("make the user an editor")
    }
}

fn rejection(is_locked: bool) -> &'static str {
    if is_locked {
        "too many consecutive incorrect login attempts for user - login for user temporarily blocked"
    } else {
        "invalid password"
    }
}
