//! A real authoritative DNS server for the zone `test.`, on loopback, over UDP and TCP. Records
//! come and go while it runs; names can be told to answer SERVFAIL, or nothing at all.

use std::collections::HashMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::{Time, TokioRuntimeProvider};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::{A, CNAME, MX, SOA, TXT};
use hickory_server::proto::rr::{LowerName, Name, RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, MessageResponseBuilder, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

/// How a name misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The server says that it cannot tell.
    ServFail,
    /// No answer comes.
    Silence,
}

/// A running server; it ends when the value is dropped.
pub struct Dns {
    /// Where it listens.
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _server: Server<Handler>,
}

#[derive(Default)]
struct Zone {
    records: Vec<Record>,
    troubles: HashMap<String, Trouble>,
}

impl Dns {
    /// Starts one with an empty zone.
    pub async fn start() -> Self {
        let zone = Arc::new(Mutex::new(Zone::default()));
        let mut server = Server::new(Handler { zone: zone.clone() });
        let (udp, tcp) = bind().await;
        let address = udp.local_addr().unwrap();
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 4096);
        Self {
            address,
            zone,
            _server: server,
        }
    }

    /// Publishes a TXT record, in strings of 200 octets, as long values are.
    pub fn txt(&self, name: &str, text: &str) {
        let strings: Vec<&[u8]> = text.as_bytes().chunks(200).collect();
        self.publish(name, RData::TXT(TXT::from_bytes(strings)));
    }

    /// Publishes an alias.
    pub fn cname(&self, name: &str, target: &str) {
        self.publish(name, RData::CNAME(CNAME(absolute(target))));
    }

    /// Publishes the address of a host.
    pub fn a(&self, name: &str, address: Ipv4Addr) {
        self.publish(name, RData::A(A(address)));
    }

    /// Publishes a mail host of a domain.
    pub fn mx(&self, domain: &str, preference: u16, host: &str) {
        self.publish(domain, RData::MX(MX::new(preference, absolute(host))));
    }

    /// Takes everything at this name away.
    pub fn withdraw(&self, name: &str) {
        let name = absolute(name);
        let mut zone = self.zone.lock().unwrap();
        zone.records.retain(|record| record.name != name);
    }

    /// Questions about this name go wrong; none: they go well again.
    pub fn trouble(&self, name: &str, trouble: Option<Trouble>) {
        let mut zone = self.zone.lock().unwrap();
        let name = format!("{}.", name.to_ascii_lowercase());
        match trouble {
            Some(trouble) => zone.troubles.insert(name, trouble),
            None => zone.troubles.remove(&name),
        };
    }

    fn publish(&self, name: &str, data: RData) {
        let record = Record::from_rdata(absolute(name), 60, data);
        self.zone.lock().unwrap().records.push(record);
    }
}

struct Handler {
    zone: Arc<Mutex<Zone>>,
}

impl Handler {
    /// The zone as it is now: small enough to be built for each question.
    fn catalog(&self) -> Catalog {
        let origin = absolute("test");
        let (ns, admin) = (absolute("ns.test"), absolute("admin.test"));
        let soa = SOA::new(ns, admin, 1, 60, 60, 60, 60);
        let mut zone = InMemoryZoneHandler::<TokioRuntimeProvider>::empty(
            origin.clone(),
            ZoneType::Primary,
            AxfrPolicy::Deny,
            None,
        );
        zone.upsert_mut(Record::from_rdata(origin.clone(), 60, RData::SOA(soa)), 1);
        for record in &self.zone.lock().unwrap().records {
            zone.upsert_mut(record.clone(), 1);
        }
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::new(&origin), vec![Arc::new(zone)]);
        catalog
    }
}

impl RequestHandler for Handler {
    fn handle_request<'a, 'b, 'c, R, T>(
        &'a self,
        request: &'b Request,
        mut response: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        R: ResponseHandler + 'c,
        T: Time + 'c,
        Self: 'c,
    {
        Box::pin(async move {
            let name = request.request_info().unwrap().query.name().to_string();
            let trouble = self.zone.lock().unwrap().troubles.get(&name).copied();
            match trouble {
                None => {
                    let catalog = self.catalog();
                    catalog.handle_request::<R, T>(request, response).await
                }
                Some(Trouble::Silence) => std::future::pending().await,
                Some(Trouble::ServFail) => {
                    let reply = MessageResponseBuilder::from_message_request(request)
                        .error_msg(&request.metadata, ResponseCode::ServFail);
                    response.send_response(reply).await.unwrap()
                }
            }
        })
    }
}

fn absolute(name: &str) -> Name {
    let labels = name.split('.').filter(|label| !label.is_empty());
    Name::from_labels(labels.map(str::as_bytes)).unwrap()
}

/// One port for both protocols, as a resolver expects.
async fn bind() -> (UdpSocket, TcpListener) {
    for _ in 0..20 {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}
