// PLCs for tests, driven by JSON lines: one command in, one answer out. Ends when its input ends.
"use strict";
const readline = require("readline");
const { OPCUAServer } = require("node-opcua-server");
const { OPCUACertificateManager } = require("node-opcua-certificate-manager");
const { DataType } = require("node-opcua-variant");
const { StatusCodes } = require("node-opcua-status-code");
const { SecurityPolicy, MessageSecurityMode } = require("node-opcua-secure-channel");

async function started(options) {
  const pki = new OPCUACertificateManager({ rootFolder: options.pki, automaticallyAcceptUnknownCertificate: true });
  await pki.initialize();
  const server = new OPCUAServer({
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
    serverCapabilities: {
      minSupportedSampleRate: 0,
      ...(options.limits && { operationLimits: options.limits }),
      ...(options.continuation_points && { maxBrowseContinuationPoints: options.continuation_points }),
    },
    serverInfo: { applicationUri: "urn:test:node-opcua" },
  });
  await server.initialize();
  for (const uri of options.namespaces_before || []) server.engine.addressSpace.registerNamespace(uri);
  const space = server.engine.addressSpace.registerNamespace("urn:test:plc");
  const plant = space.addFolder("ObjectsFolder", { browseName: "Plant" });
  const nodes = new Map();

  function add(name, type, value, folder = plant) {
    const node = space.addVariable({
      componentOf: folder,
      browseName: folder === plant ? name : name.split("/").pop(),
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

  for (const [name, { type, value }] of Object.entries(options.tags)) add(name, type, value);
  await server.start();
  return {
    add: ({ name, type, value }) => add(name, type, value),
    // lines of machines with tags, as many as are asked for
    grow: ({ lines, machines, tags }) => {
      for (let line = 0; line < lines; line++) {
        const folder = space.addFolder(plant, { browseName: `Line ${line}` });
        for (let machine = 0; machine < machines; machine++) {
          const of = space.addObject({ componentOf: folder, browseName: `Machine ${machine}` });
          for (const tag of tags) add(`Line ${line}/Machine ${machine}/${tag}`, "Int32", 1, of);
        }
      }
    },
    remove: ({ name }) => {
      server.engine.addressSpace.deleteNode(nodes.get(name));
      nodes.delete(name);
    },
    write: ({ name, type, value, at_ms, status }) => {
      const code = status ? StatusCodes[status] : StatusCodes.Good;
      const shown = value === undefined || value === null ? { dataType: DataType.Null } : { dataType: DataType[type], value };
      nodes.get(name).setValueFromSource(shown, code, new Date(at_ms));
    },
    namespace: () => space.index,
    subscriptions: () => server.engine.currentSubscriptionCount,
    // what is watched in all subscriptions
    items: () => Object.values(server.engine._sessions)
      .flatMap((session) => Object.values(session.publishEngine._subscriptions))
      .reduce((sum, one) => sum + one.monitoredItemCount, 0),
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
    stop: () => server.shutdown(0),
  };
}

(async () => {
  const servers = new Map(); // by port
  for await (const line of readline.createInterface({ input: process.stdin })) {
    let answer;
    try {
      const { command, port, ...rest } = JSON.parse(line);
      if (command === "start") servers.set(port, await started({ port, ...rest }));
      const result = command === "start" ? null : await servers.get(port)[command](rest);
      if (command === "stop") servers.delete(port);
      answer = { result: result ?? null };
    } catch (error) {
      answer = { error: String(error.stack) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  for (const one of servers.values()) await one.stop();
  process.exit(0);
})();
