//! A real authoritative DNS server for tests, on loopback, over UDP and TCP. Beside its zone it can
//! be told to answer SERVFAIL for names, or nothing at all, and it counts what it is asked.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::net::runtime::{Time, TokioRuntimeProvider};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME, MX, SOA};
use hickory_server::proto::rr::{LowerName, Name, RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, MessageResponseBuilder, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

/// How a name misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    ServFail,
    Silence,
}

/// Builds a zone for `test.`, line by line.
#[derive(Default)]
pub(crate) struct Zone {
    records: Vec<Record>,
    faults: HashMap<String, Fault>,
}

impl Zone {
    pub(crate) fn a(self, name: &str, address: &str) -> Self {
        self.record(name, 60, RData::A(A(address.parse().unwrap())))
    }

    pub(crate) fn aaaa(self, name: &str, address: &str) -> Self {
        self.record(name, 60, RData::AAAA(AAAA(address.parse().unwrap())))
    }

    pub(crate) fn mx(self, name: &str, preference: u16, exchange: &str) -> Self {
        self.record(name, 60, RData::MX(MX::new(preference, absolute(exchange))))
    }

    pub(crate) fn cname(self, name: &str, target: &str) -> Self {
        self.record(name, 60, RData::CNAME(CNAME(absolute(target))))
    }

    /// Queries about `name` go wrong in this way.
    pub(crate) fn fault(mut self, name: &str, fault: Fault) -> Self {
        self.faults.insert(format!("{name}."), fault);
        self
    }

    fn record(mut self, name: &str, ttl: u32, data: RData) -> Self {
        self.records
            .push(Record::from_rdata(absolute(name), ttl, data));
        self
    }

    /// Starts serving; ends when the server is dropped.
    pub(crate) async fn serve(self) -> DnsServer {
        let origin = absolute("test");
        let soa = SOA::new(
            absolute("ns.test"),
            absolute("admin.test"),
            1,
            60,
            60,
            60,
            60,
        );
        let mut zone = InMemoryZoneHandler::<TokioRuntimeProvider>::empty(
            origin.clone(),
            ZoneType::Primary,
            AxfrPolicy::Deny,
            None,
        );
        zone.upsert_mut(Record::from_rdata(origin.clone(), 60, RData::SOA(soa)), 1);
        for record in self.records {
            zone.upsert_mut(record, 1);
        }
        let mut catalog = Catalog::new();
        catalog.upsert(LowerName::new(&origin), vec![Arc::new(zone)]);

        let asked = Arc::new(Asked::default());
        let handler = Handler {
            catalog,
            faults: self.faults,
            asked: Arc::clone(&asked),
        };
        let mut server = Server::new(handler);
        let (udp, tcp) = bind().await;
        let address = udp.local_addr().unwrap();
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(5), 4096);
        DnsServer {
            address,
            asked,
            _server: server,
        }
    }
}

/// A running server.
pub(crate) struct DnsServer {
    pub(crate) address: SocketAddr,
    asked: Arc<Asked>,
    _server: Server<Handler>,
}

impl DnsServer {
    /// How many queries it was sent about this name.
    pub(crate) fn queries_about(&self, name: &str) -> usize {
        let counts = self.asked.by_name.lock().unwrap();
        counts.get(&format!("{name}.")).copied().unwrap_or(0)
    }

    /// How many queries it was sent at all.
    pub(crate) fn queries(&self) -> usize {
        self.asked.all.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
struct Asked {
    all: AtomicUsize,
    by_name: Mutex<HashMap<String, usize>>,
}

struct Handler {
    catalog: Catalog,
    faults: HashMap<String, Fault>,
    asked: Arc<Asked>,
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
            self.asked.all.fetch_add(1, Ordering::Relaxed);
            *self
                .asked
                .by_name
                .lock()
                .unwrap()
                .entry(name.clone())
                .or_default() += 1;
            match self.faults.get(&name) {
                None => self.catalog.handle_request::<R, T>(request, response).await,
                Some(Fault::Silence) => std::future::pending().await,
                Some(Fault::ServFail) => {
                    let reply = MessageResponseBuilder::from_message_request(request)
                        .error_msg(&request.metadata, ResponseCode::ServFail);
                    response.send_response(reply).await.unwrap()
                }
            }
        })
    }
}

/// A name from its labels as they are: a zone may hold names that no host can have.
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
