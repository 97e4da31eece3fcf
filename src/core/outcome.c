/* outcome.c - the life of a verdict: init, then free, on every path. */
#include "core.h"

#include <stdlib.h>

void
esp_outcome_init(struct esp_outcome *outcome)
{
    /* Field by field: zeroing the texts would cost more than all the rest. */
    outcome->kind = ESP_OK;
    outcome->sent = ESP_NOT_SENT;
    outcome->call_sent = ESP_NOT_SENT;
    outcome->retry = ESP_RETRY_NEVER;
    outcome->http_status = 0;
    outcome->code = 0;
    outcome->has_code = false;
    outcome->certificate = false;
    outcome->lost_reply = false;
    outcome->curl_code = CURLE_OK;
    outcome->attempts = 0;
    outcome->attempts_max = 0;
    outcome->elapsed_s = 0;
    outcome->retry_after = -1;
    outcome->timing = (struct esp_timing){
        .dns_s = -1, .connect_s = -1, .tls_s = -1, .first_byte_s = -1};
    outcome->json = NULL;
    outcome->rounds = NULL;
    outcome->round_count = 0;
    outcome->body_length = 0;
    outcome->message[0] = '\0';
    outcome->body[0] = '\0';
}

void
outcome_free_rounds(struct cJSON **rounds, int count)
{
    while (count > 0)
        json_free(rounds[--count]);
    free(rounds);
}

void
esp_outcome_free(struct esp_outcome *outcome)
{
    if (outcome == NULL)
        return;
    json_free(outcome->json);
    outcome_free_rounds(outcome->rounds, outcome->round_count);
    outcome->json = NULL;
    outcome->rounds = NULL;
    outcome->round_count = 0;
}
