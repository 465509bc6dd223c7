// Who reads the player with node-opcua's own client: node node_opcua_client.js URL MACHINES TAG,TAG,...
"use strict";
const { OPCUAClient, ClientSubscription, ClientMonitoredItemGroup, AttributeIds, TimestampsToReturn,
    MessageSecurityMode, SecurityPolicy } = require("node-opcua-client");

async function main(url, machines, tags) {
    let values = 0;
    const client = OPCUAClient.create({
        endpointMustExist: false,
        securityMode: MessageSecurityMode.None,
        securityPolicy: SecurityPolicy.None,
        clientCertificateManager: undefined,
    });
    await client.connect(url);
    const session = await client.createSession();
    const subscription = ClientSubscription.create(session, {
        requestedPublishingInterval: 50,
        requestedLifetimeCount: 10000,
        requestedMaxKeepAliveCount: 20,
        maxNotificationsPerPublish: 10000,
        publishingEnabled: true,
    });
    const items = [];
    for (let machine = 0; machine < machines; machine++)
        for (const tag of tags) items.push({ nodeId: `ns=2;s=${machine}.${tag}`, attributeId: AttributeIds.Value });
    const group = ClientMonitoredItemGroup.create(
        subscription, items, { samplingInterval: 50, discardOldest: true, queueSize: 100 }, TimestampsToReturn.Both);
    group.on("changed", () => { values += 1; });
    const waiting = setInterval(() => {
        if (values >= items.length) {
            clearInterval(waiting);
            console.log(JSON.stringify({ ready: true }));
        }
    }, 50);
    process.stdin.on("data", () => console.log(JSON.stringify({ values })));
    process.stdin.on("end", () => process.exit(0));
}

main(process.argv[2], Number(process.argv[3]), process.argv[4].split(",")).catch((error) => {
    console.error(String(error));
    process.exit(1);
});
