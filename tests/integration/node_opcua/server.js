// A PLC for tests, driven by JSON lines: one command in, one answer out. Ends when its input ends.
"use strict";
const readline = require("readline");
const { OPCUAServer } = require("node-opcua-server");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");
const { DataType } = require("node-opcua-variant");
const { StatusCodes } = require("node-opcua-status-code");
const { SecurityPolicy, MessageSecurityMode } = require("node-opcua-secure-channel");

const options = JSON.parse(process.argv[2]);
const nodes = new Map();
let folder, space;

function add(name, type, value) {
  const node = space.addVariable({
    componentOf: folder,
    browseName: name,
    nodeId: `s=${name}`,
    dataType: type,
    value: { dataType: DataType[type], value },
    minimumSamplingInterval: 0,
    historizing: options.history === true,
  });
  node.setValueFromSource({ dataType: DataType[type], value });
  if (options.history) server.engine.addressSpace.installHistoricalDataNode(node, { maxOnlineValues: 5000 });
  nodes.set(name, node);
}

const commands = {
  add: ({ name, type, value }) => add(name, type, value),
  remove: ({ name }) => {
    server.engine.addressSpace.deleteNode(nodes.get(name));
    nodes.delete(name);
  },
  write: ({ name, type, value, at_ms, status }) => {
    const code = status ? StatusCodes[status] : StatusCodes.Good;
    const shown = value === undefined || value === null ? { dataType: DataType.Null } : { dataType: DataType[type], value };
    nodes.get(name).setValueFromSource(shown, code, new Date(at_ms));
  },
  subscriptions: () => server.engine.currentSubscriptionCount,
  sessions: () => server.engine.currentSessionCount,
  drop_connections: () => {
    for (const end of server.endpoints) end.abruptlyInterruptChannels();
  },
  drop_subscriptions: () => {
    for (const session of Object.values(server.engine._sessions)) {
      for (const one of Object.values(session.publishEngine._subscriptions)) {
        session.deleteSubscription(one.id);
      }
    }
  },
};

let server;
(async () => {
  const pki = new OPCUACertificateManager({ rootFolder: options.pki, automaticallyAcceptUnknownCertificate: true });
  await pki.initialize();
  server = new OPCUAServer({
    port: options.port,
    hostname: "127.0.0.1",
    serverCertificateManager: pki,
    userCertificateManager: pki,
    securityPolicies: [
      SecurityPolicy.None, SecurityPolicy.Basic256Sha256, SecurityPolicy.Aes128_Sha256_RsaOaep,
      SecurityPolicy.Aes256_Sha256_RsaPss,
    ],
    securityModes: [MessageSecurityMode.None, MessageSecurityMode.Sign, MessageSecurityMode.SignAndEncrypt],
    defaultSecureTokenLifetime: options.token_ms,
    allowAnonymous: options.anonymous !== false,
    userManager: { isValidUser: (name, word) => name === "operator" && word === "secret" },
    // 0: every change is told, not only one per sampling interval
    serverCapabilities: { minSupportedSampleRate: 0, ...(options.limits && { operationLimits: options.limits }) },
    serverInfo: { applicationUri: "urn:test:node-opcua" },
  });
  await server.initialize();
  space = server.engine.addressSpace.registerNamespace("urn:test:plc");
  folder = space.addFolder("ObjectsFolder", { browseName: "Plant" });
  for (const [name, { type, value }] of Object.entries(options.tags)) add(name, type, value);
  await server.start();
  process.stdout.write(JSON.stringify({ ready: server.endpoints[0].port }) + "\n");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let answer;
    try {
      const { command, ...rest } = JSON.parse(line);
      answer = { result: commands[command](rest) ?? null };
    } catch (error) {
      answer = { error: String(error.stack) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  await server.shutdown(0);
  process.exit(0);
})().catch((error) => {
  process.stdout.write(JSON.stringify({ error: String(error.stack) }) + "\n");
  process.exit(1);
});
